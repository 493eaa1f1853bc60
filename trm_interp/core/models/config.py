"""What the configuration of any model has: a frozen dataclass an architecture. Needs no torch."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

from trm_interp.core.clock import Schedule, trm_schedule
from trm_interp.runtime.limits import at_most
from trm_interp.runtime.settings import in_range, positive

MAX_EVALUATIONS = 1024  # of the network in a supervision step; the published models have 21


class ModelConfig(ABC):
    """What everybody may ask of any model's configuration, a frozen dataclass of plain values."""

    architecture: ClassVar[str]  # name in the registry

    cells: int  # of the grid
    vocab: int  # tokens
    d_model: int  # width of the states
    prefix: int  # positions before the cells
    h_cycles: int  # of a supervision step
    l_cycles: int  # its depth inside an H-cycle, as far as a curriculum may change it
    n_identifiers: int = 0  # puzzles with an embedding of their own; 0: identifiers are ignored

    @property
    def positions(self) -> int:
        """Positions of the states: the prefix, then the cells."""
        return self.prefix + self.cells

    @property
    def depth(self) -> tuple[int, int]:
        """(H_cycles, L_cycles) of the model's own supervision step."""
        return self.h_cycles, self.l_cycles

    @property
    def schedule(self) -> Schedule:
        """The evaluations of the model's own supervision step."""
        return self.schedule_at(self.depth)

    @property
    @abstractmethod
    def n_weights(self) -> int:
        """All that training changes."""

    @abstractmethod
    def schedule_at(self, depth: tuple[int, int]) -> Schedule:
        """The evaluations of a supervision step of another (H_cycles, L_cycles)."""


class BlockConfig(ModelConfig):
    """The configuration of a model whose networks are stacks of `layers.Block`."""

    n_layers: int
    mixer: Literal["mlp", "attention"]
    n_heads: int
    expansion: float
    multiple: int
    normalised_swiglu: bool
    norm_eps: float
    rope_base: float
    q_outputs: int  # of the halting head
    separate_networks: bool = False  # the answer state has one of its own
    one_step_gradient: bool = False  # through the last evaluation of each state only

    def __post_init__(self) -> None:
        in_range(type(self), vars(self))
        positive(self, "cells", "vocab", "d_model", "n_layers", "h_cycles", "l_cycles", "multiple")
        positive(self, "n_heads", "q_outputs")
        for name in ("prefix", "n_identifiers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.n_identifiers and not self.prefix:
            raise ValueError(
                f"n_identifiers {self.n_identifiers} needs a prefix of at least 1, which holds "
                "their embeddings; with n_identifiers 0 the model does not tell puzzles apart"
            )
        at_most("h_cycles x (l_cycles + 1)", self.h_cycles * (self.l_cycles + 1), MAX_EVALUATIONS)
        for name in ("expansion", "norm_eps", "rope_base"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.mixer not in ("mlp", "attention"):
            raise ValueError(f"mixer must be 'mlp' or 'attention', got {self.mixer!r}")
        if not (self.swiglu_width(self.d_model) and self.swiglu_width(self.positions)):
            raise ValueError(f"expansion {self.expansion} leaves the SwiGLU no width")
        if self.mixer == "attention" and self.d_model % (2 * self.n_heads):
            raise ValueError(
                f"d_model {self.d_model} must be a multiple of 2 x {self.n_heads} heads"
            )

    def schedule_at(self, depth: tuple[int, int]) -> Schedule:
        """H-cycles of z_L updates and one of z_H, where an architecture has no other."""
        return trm_schedule(*depth)

    @property
    def learns_positions(self) -> bool:
        """Whether positions are embeddings that are added once, instead of rotary."""
        return False

    @property
    def prefix_width(self) -> int:
        """Numbers in the embedding that the prefix positions hold: the first of them is filled."""
        return self.d_model

    @property
    def n_weights(self) -> int:
        """All that training changes."""
        n, d = self.positions, self.d_model
        channels = 3 * d * self.swiglu_width(d)
        mixing = 4 * d * d if self.mixer == "attention" else 3 * n * self.swiglu_width(n)
        networks = (2 if self.separate_networks else 1) * self.n_layers * (channels + mixing)
        ends = 2 * self.vocab * d + self.q_outputs * (d + 1)
        if self.prefix:
            ends += max(1, self.n_identifiers) * self.prefix_width
        return networks + ends + (n * d if self.learns_positions else 0)

    @property
    def mixer_site(self) -> str:
        """Name of the hook point behind the mixer."""
        return "hook_attn_out" if self.mixer == "attention" else "hook_mixer_out"

    def swiglu_width(self, n: int) -> int:
        """Hidden width of a SwiGLU over n entries.

        >>> from trm_interp.core.models.trm_config import TRMConfig
        >>> TRMConfig().swiglu_width(512), TRMConfig().swiglu_width(97)
        (1536, 512)
        """
        width = round(self.expansion * n * 2 / 3)
        return -(-width // self.multiple) * self.multiple


def __getattr__(name: str) -> Any:
    if name == "TRMConfig":  # stood here once
        from trm_interp.core.models.trm_config import TRMConfig

        return TRMConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
