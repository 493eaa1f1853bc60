"""Settings of the commands on a checkpoint and puzzles. Read by the command line; needs no torch.

Training has its own settings, `core.training.settings.TrainConfig`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trm_interp.core.clock import MOST_COUNTED
from trm_interp.core.models.registry import DEFAULT, config_class, names
from trm_interp.core.training.settings import TrainConfig
from trm_interp.runtime.artifacts import FORMS, artifact
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import at_most, in_seed_range, parse_indices, shown
from trm_interp.runtime.settings import group, partial_group, positive, preset, required, setting
from trm_interp.subjects.presets import PRESETS

STATES = "states"
DEFAULT_TASK, FIRST_LOOK_TASK = "sudoku6", "sudoku9"  # what commands take where none is named
MOST_RECORDED = 1024  # supervision steps; building hook points takes a second for each fifty
WORDS_FOR_POSITIONS = ("asked", "border")
RANDOM_POSITIONS = "random:"  # and how many
Device = Literal["auto", "cpu", "cuda", "mps"]
Compile = Literal["auto", "always", "never"]
Identifiers = Literal["true", "blank", "swapped"]
CKPT_HELP = f"checkpoint: {FORMS}"
PUZZLES_HELP = "puzzles: lines, drawn grids, CSV with a header, or a public data folder"
SHIPPED = "the one that ships"
SHIPPED_PUZZLES = "those of the checkpoint's task that ship, for tests"
STATIC_HELP = "also PNG and PDF, where kaleido and a browser are installed"
COMPILE_HELP = (
    "torch.compile the network; auto: on a CPU, where the work is long enough to pay for it, which "
    "is counted before it begins; moves the last digits of numbers"
)
# the same option as a switch, in earlier versions
COMPILE_SWITCHES = {"--compile": "always", "--no-compile": "never"}
BATCH_HELP = "puzzles at once; bounds the memory"


def default_checkpoint() -> Path:
    """The checkpoint that is taken where none is named."""
    return shipped_checkpoint(DEFAULT_TASK)


def first_look(task: str = "") -> Path:
    """The checkpoint that `quickstart` shows: of the paper's task, or of the task or family named.

    UserError where none of it ships.
    """
    from trm_interp.tasks.registry import families, family

    if task in families():
        sizes = family(task).sizes()
        task = next((size.name for size in sizes if size.checkpoints), sizes[0].name)
    return shipped_checkpoint(task or FIRST_LOOK_TASK)


def shipped_checkpoint(task: str) -> Path:
    """The best checkpoint that ships for the task of that name. UserError where none does.

    Of those that are not there the name, for the error message of who opens it.
    """
    from trm_interp.tasks.registry import task_named

    shipped = task_named(task)
    paths = [artifact(name) for name in shipped.checkpoints]
    if not paths:
        raise UserError(f"no checkpoint for {shipped.title} puzzles ships; name one with --ckpt")
    return next((path for path in paths if path.exists()), paths[-1])


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Accuracy at every supervision step."""

    ckpt: str = setting("", CKPT_HELP, otherwise=SHIPPED)
    puzzles: Path | None = setting(None, PUZZLES_HELP, otherwise=SHIPPED_PUZZLES)
    steps: int = setting(16, "supervision steps", most=MOST_COUNTED)
    batch_size: int = setting(64, BATCH_HELP)
    limit: int | None = setting(None, "only the first so many puzzles", otherwise="all")
    device: Device = setting("auto", "where to compute; auto takes a GPU where there is one")
    dtype: Literal["float32", "bfloat16"] = setting("float32", "compute dtype")
    compile: Compile = setting("auto", COMPILE_HELP, switches=COMPILE_SWITCHES)
    identifiers: Identifiers = setting(
        "true",
        "embeddings of puzzles that have their own: theirs, or as a control blank (number 0) or "
        "swapped (of other puzzles)",
    )
    skip_bad: bool = setting(False, "leave out puzzles that are not valid, and say which")
    csv: Path | None = setting(None, "also write the table as CSV", otherwise="not written")
    overwrite: bool = setting(False, "replace that CSV file", needs={"csv": True})

    def __post_init__(self) -> None:
        positive(self, "steps", "batch_size", "limit")


def check_positions(text: str | None) -> None:
    """UserError where a setting of positions is none: indices, or a word for cells of the puzzles.

    >>> check_positions("random:0")
    Traceback (most recent call last):
    trm_interp.runtime.errors.UserError: positions: 'random:0' draws none; try random:16
    """
    if text is None or text in WORDS_FOR_POSITIONS:
        return
    number = text.removeprefix(RANDOM_POSITIONS)
    if number != text and (not number.isdecimal() or not number.strip("0")):
        raise UserError(f"positions: {shown(text)!r} draws none; try {RANDOM_POSITIONS}16")
    parse_indices(number, "positions")


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """Record activations of a checkpoint. Written whole into the store's manifest."""

    ckpt: str = setting("", CKPT_HELP, otherwise=SHIPPED)
    puzzles: Path | None = setting(None, PUZZLES_HELP, otherwise=SHIPPED_PUZZLES)
    out: Path = required("folder of the store")
    sites: str = setting(
        STATES,
        "comma-separated states or sites of the model: by name, such as z_L, embed, logits or "
        "blocks.0.hook_mlp_out, or states (all of them) or resid (resid_mid and resid_post of all "
        "blocks)",
    )
    steps: str = setting(
        "16", "supervision steps to run, or which of them to keep the states of, such as 0-3,15"
    )
    positions: str | None = setting(
        None,
        "positions that are kept, such as 0-15; or asked (cells that some puzzle asks), border "
        "(outermost cells) or random:K (K cells, the same for all puzzles)",
        otherwise="all",
    )
    limit: int | None = setting(None, "only the first so many puzzles", otherwise="all")
    batch_size: int = setting(16, BATCH_HELP)
    device: Device = setting("auto", "where to compute; auto takes a GPU where there is one")
    dtype: Literal["float32", "bfloat16"] = setting("float32", "compute dtype")
    skip_bad: bool = setting(False, "leave out puzzles that are not valid, and say which")
    random_weights: int | None = setting(
        None,
        "a control: record the same model with fresh weights of this seed in place of its own",
        otherwise="its own",
    )
    resume: bool = setting(False, "go on with an unfinished store")
    overwrite: bool = setting(False, "replace an existing store")

    def __post_init__(self) -> None:
        positive(self, "batch_size", "limit")
        if self.steps.isdecimal():
            parse_indices(self.steps, "steps")  # no index is too large
            at_most("steps", int(self.steps), MOST_RECORDED, "each has hook points of its own")
        if not self.kept_steps:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        at_most("the last of steps", self.kept_steps[-1], MOST_RECORDED - 1)
        check_positions(self.positions)
        in_seed_range(self.random_weights, "random_weights")

    @property
    def kept_steps(self) -> list[int]:
        """Supervision steps whose states are kept; a run goes to the last of them.

        >>> CollectConfig(out=Path("out"), steps="3").kept_steps
        [0, 1, 2]
        """
        if self.steps.isdecimal():
            return list(range(int(self.steps)))
        return parse_indices(self.steps, "steps") or []


@dataclass(frozen=True)
class RunConfig:
    """A training run: where it reads and writes, the model's shape, and how it is trained.

    `model`: settings of the model but those that come from the puzzles.
    """

    train: Path = required("training puzzles")
    val: Path = required("validation puzzles, none of them a symmetric copy of a training one")
    out: Path = required("folder of the run, which is a checkpoint from the first validation on")
    val_limit: int | None = setting(500, "only the first so many validation puzzles")
    device: Device = setting("auto", "where to compute; auto takes a GPU where there is one")
    skip_bad: bool = setting(False, "leave out puzzles that are not valid, and say which")
    resume: bool = setting(False, "go on exactly where a run was stopped or killed")
    overwrite: bool = setting(False, "start over if there is a run")
    preset: str | None = preset(PRESETS, "settings of a known run")
    architecture: str = setting(
        DEFAULT, f"architecture of the model: {', '.join(names())}", old="--arch"
    )
    model: Mapping[str, Any] = partial_group(
        {name: config_class(name) for name in names()},
        "Model",
        hide=("cells", "vocab"),
        chosen_by="architecture",
    )
    training: TrainConfig = group(TrainConfig, "Training")

    def __post_init__(self) -> None:
        positive(self, "val_limit")

    @property
    def unit(self) -> str:
        """What the run's progress counts."""
        return "steps" if self.training.budget is None else "s"


@dataclass(frozen=True)
class QuickstartConfig:
    """A first look: solve, record, draw."""

    ckpt: str = setting("", CKPT_HELP, otherwise="the one that ships for a first look")
    task: str = setting(
        "",
        "take the checkpoint that ships for this task instead, such as sudoku6",
        otherwise=FIRST_LOOK_TASK,
    )
    out: Path = setting(Path("quickstart"), "folder for the store, the table and the figure")
    puzzles: Path | None = setting(None, PUZZLES_HELP, otherwise=SHIPPED_PUZZLES)
    skip_bad: bool = setting(False, "leave out puzzles that are not valid, and say which")
    n: int = setting(200, "only the first so many puzzles", flags="--limit", old="--n")
    record: int = setting(16, "puzzles to record, half of them failed where there are that many")
    device: Device = setting("auto", "where to compute; auto takes a GPU where there is one")
    overwrite: bool = setting(False, "replace the results of an earlier run")

    def __post_init__(self) -> None:
        positive(self, "n", "record")
        if self.ckpt and self.task:
            raise ValueError("--ckpt says which task it is: leave --task out")
