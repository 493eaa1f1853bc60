"""What a manifest says of the recorded model and of where the activations come from."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Literal

from msgspec import Meta

from trm_interp.core.clock import Schedule
from trm_interp.recording.schema import (
    LARGEST_AXIS,
    MORE_READOUTS,
    MOST_PUZZLES,
    MOST_TICKS,
    NAME,
    Recursion,
    trm_recursion,
)

Axis = Annotated[int, Meta(ge=1, le=LARGEST_AXIS)]
Index = Annotated[int, Meta(ge=0, lt=LARGEST_AXIS)]
Puzzles = Annotated[int, Meta(ge=1, le=MOST_PUZZLES)]
Text = Annotated[str, Meta(max_length=4096)]
Name = Annotated[str, Meta(pattern=f"^{NAME.pattern}$")]
ArchitectureName = Annotated[str, Meta(pattern=r"^\w[\w.-]{0,99}$")]  # no part of a site's name


@dataclass(frozen=True)
class ModelShape:
    """Of the recorded model, what readers of a store need."""

    h_cycles: Axis
    l_cycles: Axis
    prefix: Index
    cells: Axis
    d_model: Axis | None = None
    vocab: Axis | None = None


@dataclass(frozen=True)
class CycleOf:
    """`core.clock.Schedule` as the manifest has it."""

    h_cycles: Axis
    cycle: Annotated[list[Name], Meta(min_length=1, max_length=MOST_TICKS)]


@dataclass(frozen=True)
class Identity:
    """What was recorded, from what. Stores without `schedule` are from before there were others
    than TRMs; one with a schedule names its architecture."""

    checkpoint_sha256: Text | None = None
    data_sha256: dict[str, Text] | None = None
    batch_size: Puzzles | None = None
    device: Text | None = None
    task: Name | None = None
    architecture: ArchitectureName | None = None
    schedule: CycleOf | None = None
    states: Annotated[list[Name], Meta(max_length=100)] | None = None
    answer: Name | None = None
    latent: Name | None = None
    sites_of_some: dict[Name, list[Name]] | None = None
    random_weights: Annotated[int, Meta(ge=0)] | None = None  # their seed; None: the checkpoint's
    more_readouts: list[Literal[MORE_READOUTS]] | None = None  # type: ignore[valid-type]


@dataclass(frozen=True)
class Source:
    path: Text | None = None


@dataclass(frozen=True)
class Recorded:
    """The parts of a manifest's `meta` that are read back; whatever else is in it is free."""

    identity: Identity = field(default_factory=Identity)
    model: ModelShape | None = None
    checkpoint: Source = field(default_factory=Source)

    @cached_property
    def recursion(self) -> Recursion | None:
        """Of the recorded model; None where neither it nor the model's sizes were written.

        ValueError where it is incomplete or contradicts itself.
        """
        identity, model = self.identity, self.model
        if identity.schedule is None:
            return None if model is None else trm_recursion(model.h_cycles, model.l_cycles)
        for name in ("architecture", "states", "answer", "latent"):
            if getattr(identity, name) is None:
                raise ValueError(f"meta.identity.{name} is missing, which belongs to a schedule")
        return Recursion(
            Schedule(identity.schedule.h_cycles, tuple(identity.schedule.cycle)),
            tuple(identity.states or ()),
            identity.answer or "",
            identity.latent or "",
            identity.architecture or "",
            {name: tuple(of) for name, of in (identity.sites_of_some or {}).items()},
        )

    @property
    def more_readouts(self) -> tuple[str, ...]:
        """Of `schema.MORE_READOUTS` those that the store holds."""
        return tuple(self.identity.more_readouts or ())
