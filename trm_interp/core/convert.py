"""Save the tensors and plain settings of a checkpoint whose pickle names unknown classes.

    python -m trm_interp.core.convert FILE [COPY]

Nothing of the file is run: an inert class stands in for everything that it names, and is left out
of the copy (default: FILE with `-plain` before its ending).
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trm_interp.core.checkpoints.headers import CheckpointError
from trm_interp.core.checkpoints.pickles import load_pickle, unwrapped
from trm_interp.runtime.errors import in_one_line
from trm_interp.runtime.files import replacing

DEPTH = 8  # of dictionaries and lists in each other


def convert(source: Path, copy: Path | None = None) -> Path:
    """Write the copy; CheckpointError where it exists or the file cannot be read."""
    to = copy or source.with_name(f"{source.stem}-plain{source.suffix}")
    if to.exists():
        raise CheckpointError(f"{to}: exists; name another file for the copy")
    kept = _kept(load_pickle(source, everything_inert=True), {}, DEPTH)
    if not isinstance(kept, dict):
        raise CheckpointError(f"{source}: holds no dictionary of weights")
    with replacing(to) as partial:
        torch.save(kept, partial)
    return to


def _kept(value: Any, seen: dict[int, Any], depth: int) -> Any:
    """Tensors, numbers and texts in plain dictionaries and lists; None for all else."""
    value = unwrapped(value)
    if isinstance(value, Tensor | bool | int | float | str):
        return value
    if not depth or not isinstance(value, dict | list | tuple):
        return None
    if id(value) not in seen:  # an object met again is shared, and one within itself ends
        seen[id(value)] = None
        if isinstance(value, dict):
            seen[id(value)] = {
                key: _kept(entry, seen, depth - 1)
                for key, entry in value.items()
                if isinstance(key, str | int)
            }
        else:
            seen[id(value)] = [_kept(entry, seen, depth - 1) for entry in value]
    return seen[id(value)]


def main(words: list[str]) -> None:
    with in_one_line():
        if not 1 <= len(words) <= 2 or words[0].startswith("-"):
            raise CheckpointError("usage: python -m trm_interp.core.convert FILE [COPY]")
        print(f"wrote {convert(*map(Path, words))}")


if __name__ == "__main__":
    main(sys.argv[1:])
