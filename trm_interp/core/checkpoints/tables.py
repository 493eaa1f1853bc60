"""Some rows of a table of puzzle embeddings, read without the others: one may have a million rows.

Files of safetensors and zips of torch.save are mapped into memory, so that only what is indexed is
read; older pickles are read whole.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trm_interp.core.checkpoints.headers import CheckpointError
from trm_interp.runtime.errors import first_line


class NoTable(CheckpointError):
    """A file that has no table of puzzle embeddings, of which to read some rows."""


def load_tensors(file: Path, table: str | None, rows: Sequence[int] | None) -> dict[str, Tensor]:
    """All tensors of a safetensors file, of the one whose name ends with `table` only these rows.

    `rows` None: all of them. CheckpointError for a damaged file and for rows that it does not have.
    """
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(file, framework="pt") as content:
            for name in content.offset_keys():
                if rows is not None and table and name.endswith(table):
                    view = content.get_slice(name)
                    require_rows(view.get_shape(), rows, file)
                    tensors[name] = torch.cat([view[row : row + 1] for row in rows])
                else:
                    tensors[name] = content.get_tensor(name)
    except SafetensorError as error:
        raise CheckpointError(f"{file}: truncated or damaged ({first_line(error)})") from error
    return tensors


def some_rows(table: Tensor | None, rows: Sequence[int], file: Path) -> Tensor:
    """These rows of a table [identifier, ...]. CheckpointError where it does not have them."""
    require_rows([] if table is None else list(table.shape), rows, file)
    assert table is not None
    return table[torch.tensor(list(rows))]


def require_rows(shape: Sequence[int], rows: Sequence[int], file: Path) -> None:
    """CheckpointError unless a table of this shape has a row for every identifier."""
    if len(shape) != 2:
        raise NoTable(f"{file}: no table of puzzle embeddings, of which to read some rows")
    if not rows:
        raise CheckpointError(f"{file}: no puzzle identifiers were given to read")
    if unknown := [row for row in rows if not 0 <= row < shape[0]]:
        raise CheckpointError(
            f"{file}: no puzzle identifier {unknown[0]}; its table has 0 to {shape[0] - 1}"
        )
