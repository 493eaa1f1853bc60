"""What a file says of itself, read before it is believed: its kind, its size, its shapes.

Files of others may lie about sizes, or be pipes that never end. Nothing here allocates more than
the file is long.
"""

import json
import zipfile
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from trm_interp.runtime.arrays import BAD_ZIP
from trm_interp.runtime.errors import UserError, first_line, one_line
from trm_interp.runtime.files import require_regular

MAX_JSON = 16_000_000  # bytes; a card with its curves has about 100 000
MAX_YAML = 64_000
MAX_PICKLE = 16_000_000  # of the objects around the tensors; a public checkpoint has about 20 000
ZIP_START = b"PK\x03\x04"


class CheckpointError(UserError):
    """What is wrong with a checkpoint, in one line that names the file."""


def require_file(path: Path) -> None:
    """CheckpointError for a pipe, a device or a folder: reading one hangs or never ends."""
    try:
        require_regular(path)
    except (UserError, OSError) as error:
        raise CheckpointError(one_line(error)) from error


def read_text(path: Path, most: int) -> str:
    """The text of a regular UTF-8 file of at most so many bytes."""
    require_file(path)
    if (size := path.stat().st_size) > most:
        raise CheckpointError(f"{path}: {size / 1e6:.1f} MB; at most {most / 1e6:g} MB are read")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: truncated or damaged ({first_line(error)})") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; CheckpointError for anything else."""
    text = read_text(path, MAX_JSON)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: truncated or damaged ({first_line(error)})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: holds a {type(value).__name__}, not an object")
    return value


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes in a safetensors file by name, from its header alone."""
    require_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            names = file.offset_keys()
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except SafetensorError as error:
        raise CheckpointError(f"{path}: truncated or damaged ({first_line(error)})") from error


def is_archive(path: Path) -> bool:
    """Whether the file starts as torch's zip does."""
    with path.open("rb") as file:
        return file.read(len(ZIP_START)) == ZIP_START


def check_archive(path: Path) -> None:
    """CheckpointError for a zip that unpacks to more than it is long; torch's are not deflated."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except BAD_ZIP as error:
        raise CheckpointError(f"{path}: truncated or damaged ({first_line(error)})") from error
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise CheckpointError(f"{path}: a compressed archive, which torch.save never makes")
    if (total := sum(member.file_size for member in members)) > size:
        raise CheckpointError(
            f"{path}: its directory promises {total / 1e6:.0f} MB, it has {size / 1e6:.0f}"
        )
    objects = sum(member.file_size for member in members if _is_pickle(member))
    if objects > MAX_PICKLE:
        raise CheckpointError(f"{path}: {objects / 1e6:.0f} MB of objects that are not tensors")


def check_calls(path: Path) -> None:
    """CheckpointError for a pickle with the one allowed call that fills memory by a number.

    Of a zip, which passed `check_archive`, only the pickles are searched, not the weights.
    """
    if not path.stat().st_size:
        return
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        places = _pickles(path, content) if is_archive(path) else [(0, len(content))]
        if any(content.find(b"bytearray\n", start, end) >= 0 for start, end in places):
            raise CheckpointError(f"{path}: asks for a bytearray, which no checkpoint needs")


def _pickles(path: Path, content: mmap) -> list[tuple[int, int]]:
    """Where the pickles of a zip begin and end. `ZipFile.read` would refuse torch's files without
    checksums."""
    places = []
    with zipfile.ZipFile(path) as archive:
        for member in filter(_is_pickle, archive.infolist()):
            at = member.header_offset + 26  # lengths of the name and of extra fields
            lengths = (int.from_bytes(content[i : i + 2], "little") for i in (at, at + 2))
            start = at + 4 + sum(lengths)
            places.append((start, start + member.file_size))
    return places


def _is_pickle(member: zipfile.ZipInfo) -> bool:
    """torch finds `data.pkl` in any case."""
    return member.filename.lower().endswith(".pkl")


def check_tensor(tensor: Tensor, name: str, path: Path) -> None:
    """CheckpointError for weights that are not plain, or claim more entries than are stored."""
    if str(tensor.layout) != "torch.strided" or tensor.device.type != "cpu":
        raise CheckpointError(f"{path}: {name} is {tensor.layout} on {tensor.device}: not weights")
    if not tensor.is_floating_point():
        raise CheckpointError(f"{path}: {name} holds {tensor.dtype}, not floating-point weights")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(
            f"{path}: {name} claims {tensor.numel()} entries, fewer are in the file"
        )
