"""The shape of a TRM. Needs no torch."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from trm_interp.core.clock import Schedule, trm_schedule
from trm_interp.core.models.config import MAX_EVALUATIONS, BlockConfig
from trm_interp.runtime.limits import at_most
from trm_interp.runtime.settings import in_range, positive, setting

ATTENTION = {"mixer": ("attention",)}  # what some settings have an effect with


@dataclass(frozen=True)
class TRMConfig(BlockConfig):
    """Shape of a TRM. The defaults are the published Sudoku model (TRM-MLP, about 5 M weights).

    Limits are far above every published model, and low enough that a file or an option that is
    wrong ends in a message instead of filling the memory. Tokens are kept as uint8.
    """

    architecture: ClassVar[str] = "trm"

    cells: int = setting(81, "cells of the grid", most=65_536)
    vocab: int = setting(11, "tokens: pad, blank and the digits", most=256)
    d_model: int = setting(512, "width", most=16_384)
    n_layers: int = setting(2, "blocks of the network", most=64)
    h_cycles: int = setting(3, "H-cycles of a supervision step", most=256)
    l_cycles: int = setting(6, "z_L updates of an H-cycle", most=256)
    mixer: Literal["mlp", "attention"] = setting("mlp", "mixing of positions")
    n_heads: int = setting(8, "attention heads", most=1024, needs=ATTENTION)
    prefix: int = setting(16, "prefix positions before the cells (16, 1 or 0)", most=4096)
    expansion: float = setting(4.0, "SwiGLU expansion", most=256)
    multiple: int = setting(256, "SwiGLU widths are rounded up to a multiple of this", most=65_536)
    normalised_swiglu: bool = setting(False, "down(sigmoid(g) * RMSNorm(g * v)), for Muon")
    q_outputs: int = setting(2, "halting head outputs; the first is q_halt", most=16)
    norm_eps: float = setting(1e-5, "RMSNorm epsilon", most=1.0)
    rope_base: float = setting(10_000.0, "rotary base", most=1e12, needs=ATTENTION)

    def __post_init__(self) -> None:
        in_range(TRMConfig, vars(self))
        positive(self, "cells", "vocab", "d_model", "n_layers", "h_cycles", "l_cycles", "multiple")
        positive(self, "n_heads", "q_outputs")
        if self.prefix < 0:
            raise ValueError(f"prefix must be at least 0, got {self.prefix}")
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
        return trm_schedule(*depth)

    @property
    def n_weights(self) -> int:
        """All that training changes.

        >>> TRMConfig().n_weights
        5029378
        """
        n, d = self.positions, self.d_model
        channels = 3 * d * self.swiglu_width(d)
        mixing = 4 * d * d if self.mixer == "attention" else 3 * n * self.swiglu_width(n)
        ends = 2 * self.vocab * d + self.q_outputs * (d + 1) + (d if self.prefix else 0)
        return self.n_layers * (channels + mixing) + ends
