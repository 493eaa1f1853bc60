"""The architectures by name. A module is imported when its architecture is asked for.

Configurations can be read without torch; classes of models need it.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from trm_interp.core.models.config import ModelConfig
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import shown

if TYPE_CHECKING:
    import torch

    from trm_interp.core.models.base import RecursiveModel

DEFAULT = "trm"  # what a file is about that names no architecture


class _Entry(NamedTuple):
    model: Any  # the class, or "module:Class"
    config: Any


_ENTRIES: dict[str, _Entry] = {}


def register(name: str, model: str, config: str) -> None:
    """Make an architecture known: its class and its configuration's, as "module:Class" each."""
    _ENTRIES[name] = _Entry(model, config)


def register_model(cls: "type[RecursiveModel]") -> "type[RecursiveModel]":
    """Make a class known under its own name, for a plugin or a test; usable as a decorator."""
    _ENTRIES[cls.architecture] = _Entry(cls, cls.Config)
    return cls


def names() -> tuple[str, ...]:
    """All architectures, in the order in which they were registered."""
    return tuple(_ENTRIES)


def architecture(name: str) -> "type[RecursiveModel]":
    """The class of models of this name. UserError where there is none."""
    return _class(_entry(name).model)


def config_class(name: str) -> type[ModelConfig]:
    """The class of its configurations. UserError where there is none."""
    return _class(_entry(name).config)


def model_class(config: ModelConfig) -> "type[RecursiveModel]":
    """The class of the models that have this configuration."""
    return architecture(config.architecture)


def build(config: ModelConfig, generator: "torch.Generator | None" = None) -> "RecursiveModel":
    """A model with fresh weights, drawn from `generator`."""
    return model_class(config)(config, generator)  # type: ignore[call-arg]


def config_from(settings: Mapping[str, Any]) -> ModelConfig:
    """The configuration that `settings_of` wrote; other entries of the mapping are left alone.

    >>> config_from({"cells": 36, "vocab": 8}).positions
    52

    UserError for an unknown architecture, ValueError or TypeError for a value that cannot be.
    """
    kind = config_class(settings.get("architecture", DEFAULT))
    return kind(**{f.name: settings[f.name] for f in fields(kind) if f.name in settings})  # type: ignore[arg-type]


def settings_of(config: ModelConfig) -> dict[str, Any]:
    """The plain values of a configuration, as files hold them.

    The architecture is among them where it is not the default, whose files are older than others.
    A setting that was `added_later` is left out where it has its default: files of earlier versions
    and resumed runs stay the same.

    >>> list(settings_of(config_from({})))[:3]
    ['cells', 'vocab', 'd_model']
    """
    named = {} if config.architecture == DEFAULT else {"architecture": config.architecture}
    old = {
        f.name
        for f in fields(config)  # type: ignore[arg-type]
        if not f.metadata.get("added_later") or getattr(config, f.name) != f.default
    }
    return named | {name: value for name, value in asdict(config).items() if name in old}  # type: ignore[call-overload]


def _entry(name: Any) -> _Entry:
    if not isinstance(name, str) or name not in _ENTRIES:
        raise UserError(
            f"unknown architecture {shown(name)!r}: this version has {', '.join(_ENTRIES)}"
        )
    return _ENTRIES[name]


def _class(entry: Any) -> Any:
    if not isinstance(entry, str):
        return entry
    module, name = entry.split(":")
    return getattr(import_module(module), name)


_MODELS = "trm_interp.core.models"
register("trm", f"{_MODELS}.trm:TRM", f"{_MODELS}.trm_config:TRMConfig")
register("hrm", f"{_MODELS}.hrm:HRM", f"{_MODELS}.hrm_config:HRMConfig")
for _name, _class_name in (
    ("trm-single-z", "SingleZ"),
    ("trm-multi-z", "MultiScale"),
    ("trm-continue", "Continue"),
    ("direct", "Direct"),
):
    _module = f"{_MODELS}.trm_relatives"
    register(_name, f"{_module}:{_class_name}", f"{_module}_config:{_class_name}Config")
register(
    "equilibrium",
    f"{_MODELS}.equilibrium:Equilibrium",
    f"{_MODELS}.equilibrium_config:EquilibriumConfig",
)
