"""Settings of the model and of its training: default, help text and check in one place."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import at_most, finite, in_seed_range, int64, shown

MOST_STEPS = 1_000_000  # supervision steps of a run; more take weeks
MOST_COUNTED = 32_767  # of them where their number is kept, as an int16
MAX_EVALUATIONS = 1024  # of the network in a supervision step; the published models have 21


def setting(default: Any, help: str, **more: Any) -> Any:
    """A dataclass field whose help text the command line shows.

    `more`: parser, metavar, flags, and `most`, the largest value.
    """
    return field(default=default, metadata={"help": help, **more})


def required(help: str) -> Any:
    """A dataclass field without a default."""
    return field(metadata={"help": help})


def argument(help: str) -> Any:
    """A required field that the command line takes by its place."""
    return field(metadata={"help": help, "argument": True})


def minutes(text: str) -> float:
    """Minutes of a time such as 22m, 90s or 1.5h; a bare number is minutes.

    >>> minutes("90s"), minutes("1.5h"), minutes("22")
    (1.5, 90.0, 22.0)
    """
    per_unit = {"s": 1 / 60, "m": 1.0, "h": 60.0}
    text = str(text).strip()
    unit = text[-1:] if text[-1:] in per_unit else ""
    try:
        return float(text.removesuffix(unit)) * per_unit.get(unit, 1.0)
    except ValueError:
        raise ValueError(f"{text!r} is no time; try 22m, 90s or 1.5h") from None


def positive(config: object, *names: str) -> None:
    """ValueError where one of these fields is below 1 (None is left alone)."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {shown(value)}")


def in_range(config: type, values: Mapping[str, Any]) -> None:
    """UserError where a field's value is not finite, fits no int64, or is above its `most`.

    Every integer field called `seed` is within what all generators take.
    """
    for f in fields(config):
        value, most = values.get(f.name), f.metadata.get("most")
        if isinstance(value, bool):
            continue
        if isinstance(value, float):
            finite(f.name, value)
        elif "\0" in str(value):  # no file name and no text has one
            raise UserError(f"{f.name} holds a null character")
        if most is not None:
            at_most(f.name, value, most)
        if isinstance(value, int):
            in_seed_range(value) if f.name == "seed" else int64(f.name, value)


@dataclass(frozen=True)
class TRMConfig:
    """Shape of a TRM. The defaults are the published Sudoku model (TRM-MLP, about 5 M weights).

    Limits are far above every published model, and low enough that a file or an option that is
    wrong ends in a message instead of filling the memory. Tokens are kept as uint8.
    """

    cells: int = setting(81, "cells of the grid", most=65_536)
    vocab: int = setting(11, "tokens: pad, blank and the digits", most=256)
    d_model: int = setting(512, "width", most=16_384)
    n_layers: int = setting(2, "blocks of the network", most=64)
    h_cycles: int = setting(3, "H-cycles of a supervision step", most=256)
    l_cycles: int = setting(6, "z_L updates of an H-cycle", most=256)
    mixer: Literal["mlp", "attention"] = setting("mlp", "mixing of positions")
    n_heads: int = setting(8, "attention heads", most=1024)
    prefix: int = setting(16, "prefix positions before the cells (16, 1 or 0)", most=4096)
    expansion: float = setting(4.0, "SwiGLU expansion", most=256)
    multiple: int = setting(256, "SwiGLU widths are rounded up to a multiple of this", most=65_536)
    normalised_swiglu: bool = setting(False, "down(sigmoid(g) * RMSNorm(g * v)), for Muon")
    q_outputs: int = setting(2, "halting head outputs; the first is q_halt", most=16)
    norm_eps: float = setting(1e-5, "RMSNorm epsilon", most=1.0)
    rope_base: float = setting(10_000.0, "rotary base", most=1e12)

    def __post_init__(self) -> None:
        in_range(TRMConfig, vars(self))
        positive(self, "cells", "vocab", "d_model", "n_layers", "h_cycles", "l_cycles", "multiple")
        positive(self, "n_heads", "q_outputs")
        if self.prefix < 0:
            raise ValueError(f"prefix must be at least 0, got {self.prefix}")
        evaluations = self.h_cycles * (self.l_cycles + 1)
        at_most("h_cycles x (l_cycles + 1)", evaluations, MAX_EVALUATIONS)
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

    @property
    def positions(self) -> int:
        return self.prefix + self.cells

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

    @property
    def mixer_site(self) -> str:
        """Name of the hook point behind the mixer."""
        return "hook_attn_out" if self.mixer == "attention" else "hook_mixer_out"

    def swiglu_width(self, n: int) -> int:
        """Hidden width of a SwiGLU over n entries.

        >>> TRMConfig().swiglu_width(512), TRMConfig().swiglu_width(97)
        (1536, 512)
        """
        width = round(self.expansion * n * 2 / 3)
        return -(-width // self.multiple) * self.multiple


@dataclass(frozen=True)
class TrainConfig:
    """How to train. The defaults are the published recipe at a batch that suits one GPU."""

    steps: int = setting(50_000, "optimizer steps of the whole run", most=10**9)
    budget: float | None = setting(
        None,
        "wall clock of the whole run instead of steps: 22m, 90s, 1.5h",
        parser=minutes,
        metavar="TIME",
        most=525_600,  # a year
    )
    target: float = setting(
        0.0, "stop at a validation with this share exact at its last supervision step; 0: never"
    )
    batch_size: int = setting(768, "puzzles in flight, over all processes", most=10**6)
    micro_batches: int = setting(1, "parts in which a batch is computed, to need less memory")
    auto_batch: bool = setting(
        False, "double the micro-batches where the memory does not suffice (one process)"
    )
    n_sup: int = setting(16, "supervision steps of a puzzle before its slot is refilled", most=1000)
    explore: float = setting(0.1, "chance that a slot may not halt before a random step")
    optimizer: Literal["adamw", "muon"] = setting("adamw", "muon: for matrices, AdamW for the rest")
    lr: float = setting(1e-4, "peak AdamW learning rate", most=1000)
    muon_lr: float = setting(0.02, "peak Muon learning rate", most=1000)
    muon_decay: float = setting(0.0, "Muon weight decay", most=1000)
    beta1: float = setting(0.9, "AdamW beta 1")
    beta2: float = setting(0.95, "AdamW beta 2")
    weight_decay: float = setting(1.0, "AdamW weight decay", most=1000)
    warmup: float = setting(0.03, "fraction of the run with a rising learning rate")
    decay: Literal["constant", "cosine"] = setting("constant", "learning rate after warm-up")
    curriculum: bool = setting(False, "depth curriculum (1,2) -> (2,4) -> full at 30 and 60 %")
    loss: Literal["stablemax", "softmax"] = setting("stablemax", "answer cross-entropy")
    smoothing: float = setting(0.0, "label smoothing of the softmax cross-entropy")
    halt_weight: float = setting(0.5, "weight of the halting loss", most=1e6)
    clip: float = setting(1.0, "gradient norm limit; 0 for none")
    ema: float = setting(0.999, "decay of the moving average of the weights")
    augment: bool = setting(True, "draw a random symmetry of every puzzle")
    dtype: Literal["float32", "bfloat16"] = setting("float32", "compute dtype; weights are float32")
    compile: bool = setting(False, "torch.compile the network (needs a C++ compiler on CPU)")
    graphs: bool = setting(True, "with compile, a whole step as one CUDA graph (AdamW, one GPU)")
    eval_every: int = setting(500, "optimizer steps between validations")
    save_every: int = setting(100, "optimizer steps between saved states")
    log_every: int = setting(10, "optimizer steps between rows of metrics.jsonl")
    seed: int = setting(0, "of weights, order, symmetries and exploration")

    def __post_init__(self) -> None:
        in_range(TrainConfig, vars(self))
        positive(self, "steps", "batch_size", "micro_batches", "n_sup")
        positive(self, "eval_every", "save_every", "log_every")
        if self.budget is not None and not 0 < self.budget < float("inf"):
            raise ValueError(f"budget must be above 0 minutes and finite, got {self.budget}")
        for name in ("target", "explore", "warmup", "smoothing", "ema"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        if self.micro_batches > self.batch_size:
            raise ValueError(
                f"micro_batches {self.micro_batches} must not be above batch_size {self.batch_size}"
            )
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be from 0 to below 1, got {getattr(self, name)}")
        for name in ("lr", "muon_lr", "muon_decay", "weight_decay", "halt_weight", "clip"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name, known in {
            "optimizer": ("adamw", "muon"),
            "decay": ("constant", "cosine"),
            "loss": ("stablemax", "softmax"),
            "dtype": ("float32", "bfloat16"),
        }.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
        if self.smoothing and self.loss != "softmax":
            raise ValueError(f"smoothing {self.smoothing} needs loss 'softmax', got {self.loss!r}")


PRESETS: dict[str, dict[str, object]] = {
    # the published recipe is what the defaults say
    "published": {},
    # the published model where a GPU is lent by the minute: no prefix, which the recursion does
    # without and which costs a sixth of the positions; depth and rate follow the wall clock
    "flagship": {
        **{"prefix": 0, "budget": 25.0, "curriculum": True, "decay": "cosine"},
        **{"dtype": "bfloat16", "compile": True},
    },
    # 8 000 steps of Muon, which needs the normalised SwiGLU
    "flagship-muon": {
        **{"prefix": 1, "normalised_swiglu": True, "optimizer": "muon", "muon_lr": 0.02},
        **{"steps": 8000, "batch_size": 384, "lr": 1e-4, "decay": "cosine", "warmup": 0.0},
        **{"weight_decay": 0.1, "loss": "softmax", "smoothing": 0.2, "halt_weight": 0.05},
        **{"ema": 0.9, "dtype": "bfloat16", "compile": True},
    },
    # a smoke test on 4x4 puzzles: seconds
    "tiny": {
        **{"d_model": 32, "multiple": 16, "prefix": 0, "h_cycles": 2, "l_cycles": 2},
        **{"steps": 300, "batch_size": 32, "n_sup": 4, "lr": 3e-3, "weight_decay": 0.1},
        **{"warmup": 0.1, "ema": 0.98, "eval_every": 100},
    },
    # the checkpoints that ship, on two CPU cores
    "sudoku6": {
        **{"d_model": 96, "multiple": 32, "prefix": 0},
        **{"steps": 1250, "target": 0.87, "batch_size": 128, "lr": 1e-3, "weight_decay": 0.1},
        **{"warmup": 0.16, "ema": 0.995, "eval_every": 25, "dtype": "bfloat16", "compile": True},
    },
    "sudoku9": {
        **{"d_model": 128, "multiple": 32, "prefix": 0},
        **{"steps": 4000, "batch_size": 128, "n_sup": 8, "lr": 1e-3, "weight_decay": 0.1},
        **{"warmup": 0.05, "ema": 0.99, "eval_every": 250, "dtype": "bfloat16", "compile": True},
    },
}
