"""What the configuration of any model has: a frozen dataclass an architecture. Needs no torch."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

from trm_interp.core.clock import Schedule

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
