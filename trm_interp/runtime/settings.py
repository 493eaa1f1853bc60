"""Fields of settings: default, help text and check in one place. Standard library only.

A frozen dataclass of these fields is what a command's options are made of, and what is written
beside its results.
"""

from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import at_most, finite, in_seed_range, int64, shown


def setting(default: Any, help: str, **more: Any) -> Any:
    """A dataclass field whose help text the command line shows.

    `more`: parser, metavar, flags, and `most`, the largest value.
    """
    return field(default=default, metadata={"help": help, **more})


def required(help: str) -> Any:
    """A dataclass field without a default."""
    return field(metadata={"help": help})


def argument(help: str) -> Any:
    """A required field that the command line takes by its place."""
    return field(metadata={"help": help, "argument": True})


def positive(config: object, *names: str) -> None:
    """ValueError where one of these fields is below 1 (None is left alone)."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {shown(value)}")


def in_range(config: type, values: Mapping[str, Any]) -> None:
    """UserError where a field's value is not finite, fits no int64, or is above its `most`.

    Every integer field called `seed` is within what all generators take.
    """
    for f in fields(config):
        value, most = values.get(f.name), f.metadata.get("most")
        if isinstance(value, bool):
            continue
        if isinstance(value, float):
            finite(f.name, value)
        elif "\0" in str(value):  # no file name and no text has one
            raise UserError(f"{f.name} holds a null character")
        if most is not None:
            at_most(f.name, value, most)
        if isinstance(value, int):
            in_seed_range(value) if f.name == "seed" else int64(f.name, value)
