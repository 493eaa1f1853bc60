"""Results as frozen dataclasses that know their JSON form.

    @dataclass(frozen=True, kw_only=True)
    class Speed(Record):
        mean: float | None
        fastest: int | None = optional()

Numpy's numbers and arrays become Python's, and numbers that are not finite become null, which is
None when read again. A field that is `optional()` is left out of the JSON where it is None.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import plain
from trm_interp.runtime.schema import convert, read_json

AGAIN = "run the command again"


def optional() -> Any:
    """A field that is None, and then left out of the JSON, where there is nothing to say."""
    return field(default=None, metadata={"optional": True})


@dataclass(frozen=True, kw_only=True)
class Record:
    """A result, or a part of one.

    >>> @dataclass(frozen=True, kw_only=True)
    ... class Speed(Record):
    ...     mean: float | None
    ...     fastest: int | None = optional()
    >>> Speed(mean=float("nan")).to_json()
    {'mean': None}
    >>> Speed.from_json({"mean": 0.5, "fastest": 3})
    Speed(mean=0.5, fastest=3)
    """

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """From a mapping of all its fields, such as the functions of `analysis` return."""
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """What a JSON file holds of it."""
        return {
            one.name: _plain(value)
            for one in fields(self)
            if (value := getattr(self, one.name)) is not None or not one.metadata.get("optional")
        }

    @classmethod
    def from_json(
        cls,
        raw: Any,
        name: str = "",
        error: type[UserError] = UserError,
        advice: str = AGAIN,
    ) -> Self:
        """The record that `to_json` wrote. UserError says the file (`name`), the field and what was
        expected there."""
        return convert(cls._nested(raw), cls, name or cls.__name__, error, advice)

    @classmethod
    def _nested(cls, raw: Any) -> Any:
        """What `from_json` is given as the fields have it, where `to_json` arranges them
        otherwise."""
        return raw

    @classmethod
    def read(cls, path: Path, advice: str = AGAIN) -> Self:
        """The record that a file holds. FileNotFoundError where there is none."""
        raw = read_json(path, dict[str, Any], advice=advice)
        return cls.from_json(raw, str(path), advice=advice)


def _plain(value: Any) -> Any:
    """As JSON has it, records inside it too."""
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return plain(value)
