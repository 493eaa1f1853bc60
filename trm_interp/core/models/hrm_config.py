"""The shape of an HRM. Needs no torch."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from trm_interp.core.models.config import BlockConfig
from trm_interp.runtime.settings import setting


@dataclass(frozen=True)
class HRMConfig(BlockConfig):
    """Shape of an HRM. The defaults are the published Sudoku model, about 27 M weights.

    >>> HRMConfig().n_weights
    27275778
    """

    architecture: ClassVar[str] = "hrm"
    mixer: ClassVar[Literal["attention"]] = "attention"  # type: ignore[misc]
    normalised_swiglu: ClassVar[bool] = False  # type: ignore[misc]
    separate_networks: ClassVar[bool] = True  # type: ignore[misc]
    one_step_gradient: ClassVar[bool] = True  # type: ignore[misc]
    q_outputs: ClassVar[int] = 2  # type: ignore[misc]

    cells: int = setting(81, "cells of the grid", most=65_536)
    vocab: int = setting(11, "tokens: pad, blank and the digits", most=256)
    d_model: int = setting(512, "width", most=16_384)
    n_layers: int = setting(4, "blocks of each network", most=64)
    h_cycles: int = setting(2, "H-cycles of a supervision step", most=256)
    l_cycles: int = setting(2, "z_L updates of an H-cycle", most=256)
    n_heads: int = setting(8, "attention heads", most=1024)
    prefix: int = setting(1, "prefix positions before the cells", most=4096)
    puzzle_dims: int = setting(
        0, "numbers in a puzzle's embedding; 0: as many as fill the prefix", most=10**7
    )
    n_identifiers: int = setting(
        0, "puzzles with a prefix embedding of their own; 0: one for all", most=10**8
    )
    position_encoding: Literal["rotary", "learned"] = setting(
        "rotary", "positions: rotary in every attention, or a learned embedding added once"
    )
    expansion: float = setting(4.0, "SwiGLU expansion", most=256)
    multiple: int = setting(256, "SwiGLU widths are rounded up to a multiple of this", most=65_536)
    norm_eps: float = setting(1e-5, "RMSNorm epsilon", most=1.0)
    rope_base: float = setting(10_000.0, "rotary base", most=1e12)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.position_encoding not in ("rotary", "learned"):
            raise ValueError(
                f"position_encoding must be 'rotary' or 'learned', got {self.position_encoding!r}"
            )
        if self.puzzle_dims < 0:
            raise ValueError(f"puzzle_dims must be at least 0, got {self.puzzle_dims}")
        if self.puzzle_dims and self.prefix != (fills := -(-self.puzzle_dims // self.d_model)):
            raise ValueError(
                f"puzzle_dims {self.puzzle_dims} fill {fills} positions of {self.d_model}, "
                f"but prefix is {self.prefix}"
            )

    @property
    def learns_positions(self) -> bool:
        return self.position_encoding == "learned"

    @property
    def prefix_width(self) -> int:
        return self.puzzle_dims or self.prefix * self.d_model
