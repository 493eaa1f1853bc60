"""One part of a command's work in one process, the whole in another: how work is divided.

Work that can be divided goes through `divided`, piece by piece: a batch of puzzles, a chunk of
starts, a batch of pairs. Pieces have names, and none depends on another one of its stage. What is
small and comes before them, such as a choice of puzzles, every process does for itself; what comes
after them only follows `shard_ends()`.

- A whole process computes all pieces, one after the other.
- Shard i of n (`OneShard`) computes every n-th piece, saves it, keeps none of them in memory, and
  ends at `shard_ends()`.
- A merge (`Merging`) runs the same code with the pieces that the shards have saved, so that its
  tables, intervals and figures are those of one process. Pieces that no shard was to compute, of
  stages after `shard_ends()`, it computes itself.

Pieces are the same in any company, so that the whole does not depend on n.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from trm_interp.runtime.arrays import Arrays, read_arrays, write_arrays
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import sha256_of, write_json
from trm_interp.runtime.identity import differing, require_same
from trm_interp.runtime.outputs import maker
from trm_interp.runtime.schema import read_json
from trm_interp.runtime.shard_options import Shard

RECORD, PIECES, WORK = "shard.json", "pieces", "work"  # of a shard's folder
FACTS, IDENTITY = "facts.json", "identity.json"  # of its pieces
Compute = Callable[[int], Arrays]
Get = Callable[[], Arrays]


class ShardDone(Exception):
    """A shard has computed all its pieces."""


class Division:
    """A whole: how work goes that is not divided."""

    def pieces(self, names: Sequence[str], compute: Compute) -> Iterator[Get]:
        for i in range(len(names)):
            yield partial(compute, i)

    def note(self, facts: Mapping[str, Any]) -> None:
        pass

    def end(self) -> None:
        pass


@dataclass(eq=False)
class OneShard(Division):
    """Shard `shard`, whose pieces lie in `folder`. `planned`: names of the pieces of all shards;
    `done`: sha256 of the files of its own; `keeps_work`: whether what the command has written
    itself is a part of the output."""

    folder: Path
    shard: Shard
    tell: Callable[[str], None]
    planned: list[str] = field(default_factory=list)
    done: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    keeps_work: bool = False

    def pieces(self, names: Sequence[str], compute: Compute) -> Iterator[Get]:
        for i, name in enumerate(names):
            if len(self.planned) % self.shard.of == self.shard.number - 1:
                file = piece_file(self.folder, name)
                if read_arrays(file, None) is None:
                    if file.exists():
                        self.tell(f"{file} is damaged: computing it again")
                    write_arrays(file, compute(i))
                self.done[name] = sha256_of(file)
            self.planned.append(name)
        yield from ()

    def note(self, facts: Mapping[str, Any]) -> None:
        """Also compared with what the pieces that are there depend on. Of a shard that was stopped
        these may be fewer: what is noted later, they do not depend on."""
        file = self.folder / PIECES / FACTS
        self.facts |= facts
        there = read_json(file, dict[str, Any]) if file.exists() else {}
        ahead = there.keys() - self.facts.keys()  # noted by the stopped run, not yet by this one
        now = {k: v for k, v in self.facts.items() if ahead or k in there}
        require_same(self.folder, {k: v for k, v in there.items() if k in now}, now)
        write_json(file, there | self.facts)

    def end(self) -> None:
        if not self.done and self.planned:
            self.tell(
                f"shard {self.shard} has nothing to do: there are {len(self.planned)} pieces; a "
                "smaller --batch-size makes more"
            )
        raise ShardDone


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a finished shard says of itself. `options`: of its command, by name; `typed`: those
    that the user gave; `pieces`: sha256 of its own, by name; `planned`: names of all shards';
    `versions`: of the libraries that computed it, which may differ within a whole."""

    command: str
    number: int
    of: int
    options: dict[str, Any]
    typed: list[str]
    facts: dict[str, Any]
    planned: list[str]
    pieces: dict[str, str]
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> dict[str, Any]:
        """What the shards of a whole have in common."""
        own = {"command": self.command, "shards": self.of, **self.options, **self.facts}
        return own | {"pieces": self.planned}


class Found(NamedTuple):
    """A finished shard."""

    folder: Path
    record: Record


def piece_file(folder: Path, name: str) -> Path:
    return folder / PIECES / f"{name}.npz"


def read_shards(folders: Sequence[Path]) -> list[Found]:
    """The finished shards of one whole, in order. UserError where one is missing, twice there,
    unfinished, or of another whole."""
    found = [Found(folder, _record(folder)) for folder in folders]
    if not found:
        raise UserError("name the folders of the shards")
    first = found[0]
    for one in found[1:]:
        if fields := differing(first.record.whole, one.record.whole):
            raise UserError(
                f"{one.folder} is of another whole than {first.folder} (there): {fields}"
            )
    by_number: dict[int, Path] = {}
    of = first.record.of
    for one in found:
        number = one.record.number
        if number in by_number:
            raise UserError(f"{by_number[number]} and {one.folder} are both shard {number}/{of}")
        by_number[number] = one.folder
    if missing := [f"{i}/{of}" for i in range(1, of + 1) if i not in by_number]:
        few = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if missing[5:] else "")
        raise UserError(f"shard {few} is missing: run its command, or name its folder")
    return sorted(found, key=lambda one: one.record.number)


def mixed_versions(found: Sequence[Found], here: Mapping[str, str]) -> str | None:
    """In words, where shards were computed by other versions of torch or numpy than others, or
    than `here`, where what is left is computed. They round otherwise, but are one whole."""
    told = []
    for name in ("torch", "numpy"):
        by = dict.fromkeys([*(one.record.versions.get(name, "?") for one in found), here[name]])
        if len(by) > 1:
            told.append(f"{name} {', '.join(by)}")
    if not told:
        return None
    return f"made with several versions ({'; '.join(told)}): last bits may differ from one process"


def _record(folder: Path) -> Record:
    command = maker(folder) or ""
    if not folder.is_dir() or not command.endswith(" --shard"):
        raise UserError(f"{folder} is no folder of a shard: name what --shard wrote")
    file = folder / RECORD
    if not file.exists():
        raise UserError(f"{folder} is unfinished: run the same command with --resume")
    return read_json(file, Record, advice="run the shard again with --overwrite")


@dataclass(eq=False)
class Merging(Division):
    """The pieces of finished shards. `move`: whether files may be moved out of their folders."""

    shards: Sequence[Found]
    move: bool = False

    def __post_init__(self) -> None:
        planned = self.shards[0].record.planned
        self._owner = {name: i % len(self.shards) for i, name in enumerate(planned)}

    def pieces(self, names: Sequence[str], compute: Compute) -> Iterator[Get]:
        for i, name in enumerate(names):
            if name not in self._owner:
                yield partial(compute, i)
                continue
            folder, record = self.shards[self._owner[name]]
            yield partial(_read, folder, name, record.pieces.get(name))

    def note(self, facts: Mapping[str, Any]) -> None:
        folder, record = self.shards[0]
        there = {name: record.facts.get(name) for name in facts}
        advice = "merge with what the shards were made with"
        require_same(folder, there, facts, advice)


def _read(folder: Path, name: str, sha256: str | None) -> Arrays:
    file = piece_file(folder, name)
    again = f"run the shard of {folder} again with --resume"
    if not file.is_file():
        raise UserError(f"{file} is missing: {again}")
    arrays = None if sha256_of(file) != sha256 else read_arrays(file, None)
    if arrays is None:
        raise UserError(f"{file} was altered (sha256 differs): {again}")
    return arrays


_WHOLE = Division()
_now: ContextVar[Division] = ContextVar("division", default=_WHOLE)


@contextmanager
def dividing(division: Division) -> Iterator[None]:
    """Work inside the block is divided so."""
    token = _now.set(division)
    try:
        yield
    finally:
        _now.reset(token)


def division() -> Division:
    """How the work at hand is divided."""
    return _now.get()


def is_shard() -> bool:
    """Whether only some of the pieces are computed, and none is given."""
    return isinstance(_now.get(), OneShard)


def divided(names: Sequence[str], compute: Compute) -> Iterator[Get]:
    """For every name in order a function that gives what `compute(i)` does.

    A shard computes and saves its own pieces, and yields none: `shard_ends()` must follow before
    they are used. Names are those of files, and each is there once in a whole.

    >>> [get() for get in divided(["a", "b"], lambda i: {"n": i})]
    [{'n': 0}, {'n': 1}]
    """
    return _now.get().pieces(names, compute)


def shard_ends() -> None:
    """A shard ends here: what follows needs the pieces of all."""
    _now.get().end()


def numbered(stage: str, n: int) -> list[str]:
    """Names of the pieces of a stage.

    >>> numbered("ends", 2)
    ['ends-0000000', 'ends-0000001']
    """
    return [f"{stage}-{i:07d}" for i in range(n)]


def noted(**facts: Any) -> None:
    """What results depend on that options do not tell: sha256 of files, the device."""
    _now.get().note(facts)
