"""The shape of a TRM. Needs no torch."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from trm_interp.core.models.config import BlockConfig
from trm_interp.runtime.settings import setting

ATTENTION = {"mixer": ("attention",)}  # what some settings have an effect with
PREFIX = {"prefix": True}


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

    n_identifiers: int = setting(
        0,
        "puzzles with a prefix embedding of their own; 0: one for all",
        most=10**8,
        needs=PREFIX,
        added_later=True,
    )
    separate_networks: bool = setting(
        False, "a network for z_H apart from that for z_L", added_later=True
    )
    one_step_gradient: bool = setting(
        False,
        "gradient through the last evaluation of each state only, as HRM has it",
        added_later=True,
    )
