"""Settings of the search commands. The command line reads them, so this needs no torch."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trm_interp.core.clock import MOST_COUNTED
from trm_interp.runtime.existing import Existing
from trm_interp.runtime.settings import argument, group, positive, preset, setting
from trm_interp.subjects.settings import (
    BATCH_HELP,
    CKPT_HELP,
    COMPILE_HELP,
    COMPILE_SWITCHES,
    PUZZLES_HELP,
    SHIPPED,
    SHIPPED_PUZZLES,
    Compile,
    Device,
)

When = Literal["init", "every"]
Select = Literal["best_q", "vote", "vote_q"]
Stop = Literal["never", "q", "rules"]
ROLES = ("answer", "latent")  # of states, which every model has
ALL_STATES = ("all", "both")
ROWS_HELP = BATCH_HELP.replace("puzzles", "trajectories")

NOISE = {"sigma": True}  # what some settings have an effect with
PRESETS: dict[str, dict[str, Any]] = {
    # Efstathiou & Balwani leave sigma open; states have RMS 1, so 1 is as much noise as state
    "paper": {
        **{"k": 50, "steps": 5, "sigma": 1.0, "target": "answer", "when": "init"},
        **{"stop": "never"},
    },
    # arXiv 2605.19943
    "ptrm": {
        **{"k": 100, "steps": 64, "sigma": 0.3, "target": "latent", "when": "every"},
        **{"stop": "never"},
    },
}
# defaults of `solve`, which looks for an answer rather than a measurement
SOLVE: dict[str, Any] = {"symmetry": True, "adaptive": True, "stop": "rules", "k": 32}


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How to search: K trajectories per puzzle, what makes them differ, when they end."""

    k: int = setting(16, "trajectories per puzzle", most=100_000)
    steps: int = setting(16, "supervision steps per trajectory", most=MOST_COUNTED)
    sigma: float = setting(1.0, "standard deviation of the noise; states have RMS 1", most=1e6)
    target: str = setting(
        "answer",
        "state that the noise is added to, by name, such as z_L, or answer, latent or all",
        needs=NOISE,
    )
    when: When = setting(
        "init", "noise on the start only, or before every supervision step", needs=NOISE
    )
    shared: bool = setting(
        False, "one noise vector for all positions, not one per position", needs=NOISE
    )
    symmetry: bool = setting(False, "each trajectory solves a random symmetric copy of the puzzle")
    clean: bool = setting(True, "the first trajectory is the plain one, without noise or symmetry")
    select: Select = setting(
        "best_q", "answer: highest halting logit, commonest grid, or grids weighted by sigmoid(q)"
    )
    stop: Stop = setting(
        "q", "a trajectory ends early: never, once confident, or once its grid obeys the rules"
    )
    threshold: float = setting(
        1.0,
        "confident: halting logit above this with the same grid, two steps in a row",
        needs={"stop": ("q",)},
    )
    adaptive: bool = setting(
        False, "stop searching a puzzle once one of its trajectories has ended early"
    )
    seed: int = setting(0, "seed of the noise and the symmetries")

    def __post_init__(self) -> None:
        positive(self, "k", "steps")
        if not (math.isfinite(self.sigma) and self.sigma >= 0):
            raise ValueError(f"sigma must be finite and at least 0, got {self.sigma}")
        if not math.isfinite(self.threshold):
            raise ValueError(f"threshold must be finite, got {self.threshold}")
        if self.adaptive and self.stop == "never":
            raise ValueError("adaptive needs trajectories that end early: give stop q or rules")

    @property
    def uses_q(self) -> bool:
        return self.stop == "q" or self.select != "vote"


@dataclass(frozen=True, kw_only=True)
class SearchRun:
    """Search at test time. Inputs and outputs, and where it computes."""

    ckpt: str = setting("", CKPT_HELP, otherwise=SHIPPED)
    puzzles: Path | None = setting(None, PUZZLES_HELP, otherwise=SHIPPED_PUZZLES)
    out: Path | None = setting(
        None,
        "table, .csv or .parquet, one row per puzzle and step; a .json holds the summary",
        otherwise="not written",
    )
    batch_size: int = setting(128, ROWS_HELP)
    limit: int | None = setting(None, "only the first so many puzzles", otherwise="all")
    device: Device = setting("auto", "where to compute; auto takes a GPU where there is one")
    dtype: Literal["float32", "bfloat16"] = setting("float32", "compute dtype")
    compile: Compile = setting("auto", COMPILE_HELP, switches=COMPILE_SWITCHES)
    skip_bad: bool = setting(False, "leave out puzzles that are not valid, and say which")
    resume: bool = setting(False, "continue an unfinished table")
    overwrite: bool = setting(False, "replace an existing table")
    preset: str | None = preset(PRESETS, "settings of a published search")
    search: SearchConfig = group(SearchConfig, "Search")

    def __post_init__(self) -> None:
        positive(self, "batch_size", "limit")
        Existing(self.resume, self.overwrite)  # one of them at most
        if self.out is None and (self.resume or self.overwrite):
            raise ValueError("--resume and --overwrite need --out")
        if self.out is not None and self.out.suffix not in (".csv", ".parquet"):
            raise ValueError(f"{self.out}: a table ends in .csv or .parquet")


@dataclass(frozen=True, kw_only=True)
class SolveConfig:
    """Solve puzzles for a person to read."""

    puzzle: str = argument("a puzzle such as 53..7...., a file of puzzles, or - for standard input")
    ckpt: str | None = setting(None, CKPT_HELP, otherwise="the one that ships for the task")
    trace: bool = setting(False, "show the guess after every cycle")
    device: Device = setting("auto", "where to compute; auto takes a GPU where there is one")
    batch_size: int = setting(64, ROWS_HELP)
    skip_bad: bool = setting(False, "leave out puzzles that are not valid, and say which")
    search: SearchConfig = group(SearchConfig, "Search", SOLVE)

    def __post_init__(self) -> None:
        positive(self, "batch_size")
