"""Fields of settings: default, help text and check in one place. Standard library only.

A command's options are the fields of a frozen dataclass, which is also saved with its results.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, field, fields
from typing import Any

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import at_most, finite, in_seed_range, int64, shown


def setting(
    default: Any,
    help: str,
    *,
    old: str | Sequence[str] = (),
    needs: Mapping[str, Any] | None = None,
    **more: Any,
) -> Any:
    """A dataclass field whose help text the command line shows, followed by the default.

    `old`: earlier names of its option, such as `--max-steps`, which go on working with a notice.
    `needs`: what the setting has an effect with: the names of other fields of the same command,
    each with a tuple of values, or True for any that is not empty, or None for not given; see
    `without_effect`. `more`: `flags`, its option where that is not made of the field's name;
    `otherwise`, in words what happens where it is not given, for a default that does not tell by
    itself; `most`, the largest value; `parser` and `metavar`, for values of a form of their own;
    `added_later`, of a setting that files of earlier versions do not have;
    `switches`, options without a value that it had in earlier versions, each with its value of now.
    """
    metadata = {"help": help, "old": _tuple(old), "needs": dict(needs or {}), **more}
    return field(default=default, metadata=metadata)


def required(help: str, *, old: str | Sequence[str] = (), **more: Any) -> Any:
    """A dataclass field without a default."""
    return field(metadata={"help": help, "old": _tuple(old), **more})


def argument(help: str, default: Any = MISSING) -> Any:
    """A field that the command line takes by its place; required where it has no default."""
    metadata = {"help": help, "argument": True}
    if default is MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


def without_effect(
    needs: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[str, tuple[Any, ...]] | None:
    """The first field that keeps a setting of these `needs` from having an effect, with the values
    that it would need; None where all of them are met. Fields that are not in `values` are met.

    >>> without_effect({"arch": ("topk", "batchtopk")}, {"arch": "gated"})
    ('arch', ('topk', 'batchtopk'))
    >>> without_effect({"loop": True, "budget": None}, {"loop": True, "budget": 5.0})
    ('budget', ())
    """
    for name, wanted in needs.items():
        if name in values and not _is_met(values[name], wanted):
            return name, wanted if isinstance(wanted, tuple) else ()
    return None


def _is_met(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, tuple):
        return value in wanted
    return value in (None, "") if wanted is None else bool(value)


def group(kind: type, title: str, defaults: Mapping[str, Any] | None = None) -> Any:
    """A field that holds settings of another dataclass, offered among the command's own options.

    `title`: heading of its options in --help. The value is made of what was given, over the preset,
    over `defaults`, over those of `kind`.
    """
    own = dict(defaults or {})
    how = {"group": (kind,), "title": title, "hide": (), "defaults": own, "partial": False}
    return field(default_factory=lambda: kind(**own), metadata=how)


def partial_group(
    kinds: Sequence[type] | Mapping[str, type],
    title: str,
    hide: Sequence[str] = (),
    chosen_by: str = "",
) -> Any:
    """As `group`, of settings that are not complete before the command has read its inputs.

    The value is a dictionary of what was given or preset, by the names of any of `kinds`, less
    those in `hide`, which are not offered. `chosen_by`: the field of the command that says by its
    name which of a mapping of kinds it is, whose defaults and `needs` then count.
    """
    named = dict(kinds) if isinstance(kinds, Mapping) else {}
    every = tuple(kinds.values() if isinstance(kinds, Mapping) else kinds)
    how = {"group": every, "title": title, "hide": tuple(hide), "defaults": {}}
    choice = {"chosen_by": chosen_by, "choices": named}
    return field(default_factory=dict, metadata=how | choice | {"partial": True})


def chosen_kind(group: Mapping[str, Any], values: Mapping[str, Any]) -> type | None:
    """The kind that a group of several is of, given the command's values; None where it is open."""
    return group.get("choices", {}).get(values.get(group.get("chosen_by", "")))


def fields_of(group: Mapping[str, Any]) -> dict[str, Field[Any]]:
    """The fields that a group offers, by name; `group` is the metadata of its field."""
    every = {f.name: f for kind in reversed(group["group"]) for f in fields(kind)}
    return {name: f for name, f in every.items() if name not in group["hide"]}


def preset(presets: Mapping[str, Mapping[str, Any]], help: str) -> Any:
    """A field for the name of one of these presets, which fill the command's groups."""
    return setting(None, f"{help}: {', '.join(presets)}", presets=presets, otherwise="none")


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


def command_line(command: str, config: object) -> str:
    """The line that runs a command with these settings, for the record of what made a folder.

    Whether that replaced or resumed something is left out.
    """
    return shlex.join(["trm-interp", *command.split(), *words_of(config)])


def words_of(config: object) -> list[str]:
    """The options and arguments that make these settings on a command line, without defaults and
    without what is said of an output that is there.

    Fields that are groups are left out: their values are not of one field each.
    """
    arguments: list[str] = []
    words = []
    for f in fields(config):  # type: ignore[arg-type]
        value = getattr(config, f.name)
        if "group" in f.metadata or f.name in ("overwrite", "resume", "retry_failed"):
            continue
        if value is None or value == f.default:
            continue
        flag, _, off = f.metadata.get("flags", f"--{f.name.replace('_', '-')}").partition("/")
        if f.metadata.get("argument"):
            arguments += map(str, value if isinstance(value, list | tuple) else [value])
        elif isinstance(value, bool):
            words.append(flag if value else off or f"--no-{flag[2:]}")
        else:
            words += [flag, str(value)]
    return arguments + words


def _tuple(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
