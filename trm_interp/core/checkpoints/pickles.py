"""Pickles of others, opened without running anything of theirs.

torch's restricted reader builds tensors and plain values only. Lightning files also name a few
harmless classes around their settings (paths, namespaces, OmegaConf's nodes): an inert class
stands in for each, which keeps what it is built from and does nothing.
"""

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from trm_interp.core.checkpoints.headers import (
    CheckpointError,
    check_archive,
    check_calls,
    is_archive,
    require_file,
)
from trm_interp.runtime.artifacts import FORMS
from trm_interp.runtime.errors import first_line, is_out_of_memory

NOT_WEIGHTS = f"no weights in it; a checkpoint is {FORMS}"


class Inert:
    """In the place of an object of a class that is not loaded: its arguments and its state."""

    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> "Inert":
        self = object.__new__(cls)
        self.args, self.state = args, None
        return self

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _empty(*factory: Any) -> dict[Any, Any]:
    """In the place of defaultdict(factory)."""
    return {}


_PATHS = ("Path", "PurePath", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
_BUILTINS = ("dict", "list", "tuple", "str", "int", "float", "bool", "object")
_NODES = ("Any", "Boolean", "Bytes", "Enum", "Float", "Integer", "Interpolation", "Path", "String")
_INERT = (
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in _PATHS),
    *(f"builtins.{name}" for name in _BUILTINS),
    *(f"omegaconf.nodes.{kind}Node" for kind in _NODES),
    *(f"omegaconf.base.{name}" for name in ("ContainerMetadata", "Metadata", "Node")),
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "argparse.Namespace",
    "types.SimpleNamespace",
    "typing.Any",
)
_DICTS = (
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)
_STAND_INS: list[Any] = [(Inert, name) for name in _INERT] + [(dict, name) for name in _DICTS]
_STAND_INS.append((_empty, "collections.defaultdict"))
_NEVER = {"os", "posix", "nt", "sys"}  # modules that torch's reader never passes, whoever asks


def load_pickle(path: Path, everything_inert: bool = False) -> Any:
    """What a file of torch.save holds, classes as `Inert`; CheckpointError says why it is refused.

    Tensors of a zip stay in the file until they are used. With `everything_inert` every class and
    function that the file names gets a stand-in, so that its tensors can be saved apart.
    """
    require_file(path)
    if not path.stat().st_size:
        raise CheckpointError(f"{path}: an empty file; a checkpoint is {FORMS}")
    archive = is_archive(path)
    if archive:
        check_archive(path)
    check_calls(path)
    stand_ins = list(_STAND_INS)
    try:
        if everything_inert and archive:
            stand_ins += [(Inert, name) for name in _unknown(path)]
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: {_refused(path, archive, str(error))}") from error
    except Exception as error:  # a malformed pickle makes the reader raise any kind
        if is_out_of_memory(error):
            raise
        why = f"truncated or damaged ({first_line(error)})" if _may_be_pickle(path) else NOT_WEIGHTS
        raise CheckpointError(f"{path}: {why}") from error


def _unknown(path: Path) -> list[str]:
    """Names in a zip's pickle that neither torch nor the stand-ins allow, nothing being run."""
    with torch.serialization.safe_globals(_STAND_INS):
        return torch.serialization.get_unsafe_globals_in_checkpoint(str(path))


def _may_be_pickle(path: Path) -> bool:
    """By its first byte: a bare pickle, or torch's zip of one."""
    with path.open("rb") as file:
        return file.read(1) in (b"\x80", b"P")


def _refused(path: Path, archive: bool, why: str) -> str:
    if not _may_be_pickle(path):
        return NOT_WEIGHTS
    named = re.search(r"GLOBAL ([\w.]+)", why)
    names = [named[1], *(_unknown(path) if archive else [])] if named else []
    if not names or any(name.split(".")[0] in _NEVER for name in names):
        return "a pickle that is not plain weights; it was not run"
    problem = f"a pickle that is not plain weights (it names {names[0][:60]}); it was not run"
    if archive:
        convert = "'python -m trm_interp.core.convert FILE'"
        return f"{problem}. {convert} writes a copy of its tensors and settings alone"
    return (
        f"{problem}. PyTorch's format from before 1.6 cannot be converted: save the state_dict "
        "alone with torch.save, where the file was made"
    )


def unwrapped(value: Any) -> Any:
    """What an inert settings node holds: OmegaConf's content or value, a namespace's variables."""
    for _ in range(4):  # a node in a node; a file may nest them in circles
        if not isinstance(value, Inert) or not isinstance(value.state, dict):
            return value
        value = value.state.get("_content", value.state.get("_val", value.state))
    return value


def plain_settings(value: Any) -> dict[str, Any]:
    """The entries of a settings mapping that are numbers, texts, truth values or None."""
    mapping = unwrapped(value)
    if not isinstance(mapping, dict):
        return {}
    flat = {str(name): unwrapped(entry) for name, entry in mapping.items()}
    kinds = (bool, int, float, str, type(None))
    return {name: entry for name, entry in flat.items() if isinstance(entry, kinds)}
