"""Repositories of the Hugging Face hub, and folders that stand for them.

`hf://owner/name` is a repository, `file:///a/folder` a folder that is used as one: for machines
that share a disk, and for tests. Both are read file by file, when a file is needed, into a mirror
in the user's cache; both are written whole or not at all.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from trm_interp.runtime.caches import first_writable, user_cache
from trm_interp.runtime.errors import UserError, first_line
from trm_interp.runtime.files import replacing, sha256_of

Kind = Literal["model", "dataset"]
FORMS = "hf://owner/repo, or file:///folder for a folder that stands for a repository"
# paths lose one of two slashes on their way through pathlib
REMOTE = re.compile(r"^(hf|file):/+(.*)$")
DATASETS = "datasets/"


class HubError(UserError):
    """A repository that cannot be reached, read or written."""


def is_remote(path: object) -> bool:
    """Whether it names a repository, also as a path that has lost a slash.

    >>> is_remote("hf://owner/name"), is_remote(Path("hf://owner/name")), is_remote("runs/hf")
    (True, True, False)
    """
    return REMOTE.match(str(path)) is not None


@dataclass(frozen=True)
class OnTheHub:
    """A repository of the Hugging Face hub."""

    name: str
    kind: Kind
    url: str

    @cached_property
    def _api(self) -> Any:
        try:
            from huggingface_hub import HfApi
        except ImportError:
            raise HubError(
                f"{self.url} needs huggingface_hub: pip install huggingface_hub"
            ) from None
        return HfApi()

    def revision(self) -> str:
        try:
            return self._api.repo_info(self.name, repo_type=self.kind).sha
        except Exception as error:  # the hub raises many kinds: offline, absent, gated
            raise HubError(f"{self.url}: not reached ({first_line(error)})") from None

    def fetch(self, name: str, revision: str, mirror: Path) -> Path:
        from huggingface_hub.errors import EntryNotFoundError

        try:
            file = self._api.hf_hub_download(
                self.name, name, repo_type=self.kind, revision=revision, local_dir=mirror
            )
        except EntryNotFoundError:
            raise FileNotFoundError(f"{self.url}: no {name}") from None
        except Exception as error:
            raise HubError(f"{self.url}: {name} was not fetched ({first_line(error)})") from None
        return Path(file)

    def publish(self, files: Mapping[str, Path], message: str) -> str:
        from huggingface_hub import CommitOperationAdd

        adding = [CommitOperationAdd(name, str(file)) for name, file in sorted(files.items())]
        try:
            self._api.create_repo(self.name, repo_type=self.kind, exist_ok=True, private=True)
            done = self._api.create_commit(
                self.name, adding, commit_message=message, repo_type=self.kind
            )
        except Exception as error:
            raise HubError(
                f"{self.url}: nothing was pushed ({first_line(error)}); a token comes from "
                "`hf auth login`"
            ) from None
        return str(done.commit_url)


@dataclass(frozen=True)
class OnDisk:
    """A folder that stands for a repository."""

    folder: Path
    url: str

    def revision(self) -> str:
        if not self.folder.is_dir():
            raise HubError(f"{self.url}: no such folder")
        stats = [(file, file.stat()) for file in sorted(self.folder.rglob("*")) if file.is_file()]
        rows = [f"{file} {of.st_size} {of.st_mtime_ns}" for file, of in stats]
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:40]

    def fetch(self, name: str, revision: str, mirror: Path) -> Path:
        file, copy = self.folder / name, mirror / name
        if not file.is_file():
            raise FileNotFoundError(f"{self.url}: no {name}")
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            with replacing(copy) as temporary:
                shutil.copyfile(file, temporary)
        except OSError as error:
            raise HubError(f"{self.url}: {name} was not fetched ({error.strerror})") from None
        return copy

    def publish(self, files: Mapping[str, Path], message: str) -> str:
        """Into a folder next to it, which then takes its place."""
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=".pushing-", dir=self.folder.parent) as aside:
                whole, old = Path(aside) / "new", Path(aside) / "old"
                if self.folder.exists():
                    shutil.copytree(self.folder, whole)
                for name, file in files.items():
                    (whole / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, whole / name)
                    if sha256_of(whole / name) != sha256_of(file):
                        raise OSError(5, f"{name} was not copied whole")
                _put(whole, self.folder, old)
        except OSError as error:
            raise HubError(f"{self.url}: nothing was pushed ({error.strerror})") from None
        return self.url


def _put(new: Path, folder: Path, old: Path) -> None:
    """A folder in the place of another, which is put aside as `old`, or back where that fails."""
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise


@dataclass(frozen=True)
class Remote:
    """A folder inside a repository, at one revision, and its mirror on this machine."""

    repository: OnTheHub | OnDisk
    inner: str
    revision: str

    @property
    def folder(self) -> Path:
        """The mirror of the folder; files appear in it when they are fetched."""
        return self._mirror / self.inner

    @cached_property
    def _mirror(self) -> Path:
        base = user_cache()
        root = first_writable([base and base / "hub"])
        key = hashlib.sha256(self.repository.url.encode()).hexdigest()[:12]
        return root / f"{key}-{self.revision[:12]}"

    def fetch(self, name: str, renew: bool = False) -> Path:
        """A file of the folder, from the mirror where it is there. FileNotFoundError, HubError."""
        if not renew and (self.folder / name).is_file():
            return self.folder / name
        inner = f"{self.inner}/{name}" if self.inner else name
        return self.repository.fetch(inner, self.revision, self._mirror)


def repository(url: str | os.PathLike[str], kind: Kind) -> tuple[OnTheHub | OnDisk, str]:
    """What a URL names, and the folder inside it. HubError where it names none.

    >>> repository("hf://owner/name/a/b", "model")[1]
    'a/b'
    """
    match = REMOTE.match(str(url))
    if match is None:
        raise HubError(f"{url}: expected {FORMS}")
    scheme, rest = match[1], match[2].strip("/")
    if scheme == "file":
        return OnDisk(Path("/") / rest, f"file:///{rest}"), ""
    if rest.startswith(DATASETS):
        kind, rest = "dataset", rest.removeprefix(DATASETS)
    owner, _, rest = rest.partition("/")
    name, _, inner = rest.partition("/")
    if not (owner and name):
        raise HubError(f"{url}: expected {FORMS}")
    return OnTheHub(f"{owner}/{name}", kind, f"hf://{owner}/{name}"), inner


def remote(url: str | os.PathLike[str], kind: Kind) -> Remote:
    """A repository as it is now. HubError where it is not reached."""
    place, inner = repository(url, kind)
    return Remote(place, inner, place.revision())
