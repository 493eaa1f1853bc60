"""JSON files from anywhere, validated: errors are one line with file, field and expected type.

A schema is a dataclass or a msgspec Struct; bounds are `Annotated[int, msgspec.Meta(ge=1)]`.
msgspec is imported when a file is read, so that modules with plain schemas import without it.
"""

import json
from pathlib import Path
from typing import Any, TypeVar

from trm_interp.runtime.errors import UserError, first_line
from trm_interp.runtime.files import require_regular

T = TypeVar("T")
LARGEST = 256 * 10**6  # bytes of a JSON file that is read at all


def read_json(
    path: Path,
    kind: type[T],
    error: type[UserError] = UserError,
    advice: str = "restore it or create it again",
    largest: int = LARGEST,
) -> T:
    """The file's content as `kind`. `error` names the file, the field and the expected type.

    FileNotFoundError if there is no file.
    """
    require_regular(path)
    if (size := path.stat().st_size) > largest:
        raise error(f"{path} has {size / 1e6:.0f} MB, more than such a file can have: {advice}")
    try:
        raw = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as why:  # also text that is not UTF-8
        raise error(f"{path} is damaged ({first_line(why)[:100]}): {advice}") from None
    return convert(raw, kind, str(path), error, advice)


def convert(
    raw: Any,
    kind: type[T],
    name: str,
    error: type[UserError] = UserError,
    advice: str = "restore it or create it again",
) -> T:
    """A value parsed from JSON, as `kind`; messages call it `name`."""
    import msgspec

    try:
        return msgspec.convert(raw, kind, strict=True)
    except (msgspec.ValidationError, ValueError, TypeError, RecursionError) as why:
        text = first_line(why)
        what, _, at = text.partition(" - at `$")
        field = at.rstrip("`").lstrip(".") or "its content"
        raise error(f"{name}: {field[:60]}: {what[:140]}: {advice}") from None
