"""What messages of the command line call things: options are named as they are typed."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from typing import Any

from trm_interp.runtime.errors import printable
from trm_interp.runtime.limits import shown
from trm_interp.runtime.settings import chosen_kind, fields_of, without_effect


def flag_of(f: Field[Any]) -> str:
    """The option of a field, with that which switches it off behind a slash if it has one."""
    return f.metadata.get("flags", f"--{f.name.replace('_', '-')}")


def option_fields(config: type) -> dict[str, Field[Any]]:
    """All fields that are options, those of groups included, by their names."""
    options: dict[str, Field[Any]] = {}
    for f in fields(config):
        if "group" in f.metadata:
            options |= fields_of(f.metadata)
        elif not f.metadata.get("argument"):
            options[f.name] = f
    return options


def as_typed(config: type, message: str, of_settings: bool = True) -> str:
    """A message with options in place of the names of fields.

    At the beginning of a message of a check of settings every name is one of a field; elsewhere
    only those with an underscore are. Other messages name fields of files as well, and only what
    "must" be something at their beginning is an option.
    """
    for name, f in option_fields(config).items():
        option = flag_of(f).split("/")[0]
        end = r"\b(?![./\\])" if of_settings else "(?= must )"
        message = re.sub(f"^{name}{end}", option, message)
        if of_settings and "_" in name:
            message = re.sub(rf"(?<![\w./-]){name}\b(?![./\\])", option, message)
    return message


def notices(config: type, values: Mapping[str, Any], typed: Collection[str]) -> Iterator[str]:
    """A line for every option that was typed but has no effect given the others.

    `values`: of all options; `typed`: names of those that the user gave.
    """
    options = option_fields(config)
    for f in fields(config):
        if (kind := chosen_kind(f.metadata, values)) is not None:
            values = _as_of(kind, fields_of(f.metadata), values, typed)
            options |= {one.name: one for one in fields(kind)}
    for name in typed:
        needs = options[name].metadata.get("needs") if name in options else None
        if needs and (lacking := without_effect(needs, values)):
            other, wanted = lacking
            advice = f"; it is for {' and '.join(map(str, wanted))}" if wanted else ""
            own = _given(options[name], values[name])
            yield f"{own} has no effect {_state(options[other], values[other])}{advice}"


def _as_of(
    kind: type, offered: Mapping[str, Field[Any]], values: Mapping[str, Any], typed: Collection[str]
) -> dict[str, Any]:
    """The values with what this kind has as defaults, where others of its group were offered."""
    own = dict(values)
    for name, f in offered.items():
        if name in typed or values.get(name) != f.default:
            continue
        if hasattr(kind, name):
            own[name] = getattr(kind, name)
        else:
            own.pop(name, None)
    return own


def _given(f: Field[Any], value: Any) -> str:
    """An option as it was typed, without its value."""
    on, _, off = flag_of(f).partition("/")
    return (off or f"--no-{on[2:]}") if value is False else on


def _state(f: Field[Any], value: Any) -> str:
    """How another option stands, such as "with --arch gated"."""
    on = flag_of(f).split("/")[0]
    if value is None or value == "" or (value is False and f.default is False):
        return f"without {on}"
    return f"with {_given(f, value)}" + ("" if isinstance(value, bool) else f" {value}")


def usage_error(error: Any) -> str:
    """One line for what the parser of options refuses (an exception of click)."""
    kind, text = type(error).__name__, str(error.message).rstrip(".")
    context, option = getattr(error, "ctx", None), getattr(error, "option_name", None)
    see = f"see {context.command_path if context else 'trm-interp'} --help"
    if kind == "NoSuchOption":
        closest = get_close_matches(str(option), error.possibilities or (), n=1)
        advice = f"did you mean {closest[0]}?" if closest else see
        return printable(f"no option {option}; {advice}")
    if kind == "BadOptionUsage":
        return printable(_lower(text.replace("Option ", "").replace("'", "")))
    name = _name_of(getattr(error, "param", None))
    if name and kind == "MissingParameter":
        return printable(f"{name} is missing; {see}")
    if name and kind == "BadParameter":
        return printable(f"{name} {_refused(error, text)}".replace(" : ", ": ", 1))
    if text.endswith("?"):  # it has its own advice
        return printable(_lower(text).replace(". Did you mean", "; did you mean"))
    return printable(f"{_lower(text)}; {see}")


def _refused(error: Any, text: str) -> str:
    """The value and what is wrong with it; typer lets pydantic say that."""
    cause = error.__cause__ or error.__context__
    reasons = cause.errors() if hasattr(cause, "errors") else []
    if not reasons:
        return _lower(text)
    value, reason = shown(reasons[0]["input"]), reasons[0]["type"]
    for start, wanted in (("int", "a whole number"), ("float", "a number")):
        if reason.startswith(start):
            return f"must be {wanted}, got {value!r}"
    text = text.removeprefix("Value error, ")
    return f": {text}" if str(value) in text else f"{value}: {text}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _name_of(parameter: Any) -> str:
    """An option as typed, or an argument as usage shows it."""
    if parameter is None:
        return ""
    long = [option for option in parameter.opts if option.startswith("--")]
    return long[0] if long else str(parameter.name).upper()


def default_of(f: Field[Any]) -> Any:
    """The default that --help shows, which a required field has not (...)."""
    return ... if f.default is MISSING else f.default
