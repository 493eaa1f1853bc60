"""Settings of the model and of its training: default, help text and check in one place."""

from dataclasses import dataclass, field
from typing import Any, Literal


def setting(default: Any, help: str, **more: Any) -> Any:
    """A dataclass field whose help text the command line shows (`more`: parser, metavar, flags)."""
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
            raise ValueError(f"{name} must be at least 1, got {value}")


# What a TRM may be at most: far above every published model, low enough that a file or an option
# that is wrong ends in a message instead of filling the memory. Tokens are kept as uint8.
LIMITS = {
    **{"cells": 65_536, "prefix": 4_096, "vocab": 256, "d_model": 16_384, "n_layers": 64},
    **{"h_cycles": 256, "l_cycles": 256, "n_heads": 1_024, "q_outputs": 16},
    **{"expansion": 256, "multiple": 65_536, "norm_eps": 1.0, "rope_base": 1e12},
}
MAX_EVALUATIONS = 1_024  # of the network in one supervision step; the published models have 21


@dataclass(frozen=True)
class TRMConfig:
    """Shape of a TRM. The defaults are the published Sudoku model (TRM-MLP, about 5 M weights)."""

    cells: int = setting(81, "cells of the grid")
    vocab: int = setting(11, "tokens: pad, blank and the digits")
    d_model: int = setting(512, "width")
    n_layers: int = setting(2, "blocks of the network")
    h_cycles: int = setting(3, "H-cycles of a supervision step")
    l_cycles: int = setting(6, "z_L updates of an H-cycle")
    mixer: Literal["mlp", "attention"] = setting("mlp", "mixing of positions")
    n_heads: int = setting(8, "attention heads")
    prefix: int = setting(16, "prefix positions before the cells (16, 1 or 0)")
    expansion: float = setting(4.0, "SwiGLU expansion")
    multiple: int = setting(256, "SwiGLU widths are rounded up to a multiple of this")
    normalised_swiglu: bool = setting(False, "down(sigmoid(g) * RMSNorm(g * v)), for Muon")
    q_outputs: int = setting(2, "halting head outputs; the first is q_halt")
    norm_eps: float = setting(1e-5, "RMSNorm epsilon")
    rope_base: float = setting(10_000.0, "rotary base")

    def __post_init__(self) -> None:
        positive(self, "cells", "vocab", "d_model", "n_layers", "h_cycles", "l_cycles", "multiple")
        positive(self, "n_heads", "q_outputs")
        if self.prefix < 0:
            raise ValueError(f"prefix must be at least 0, got {self.prefix}")
        for name in ("expansion", "norm_eps", "rope_base"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name, most in LIMITS.items():
            if getattr(self, name) > most:
                raise ValueError(f"{name} must be at most {most:g}, got {getattr(self, name):.6g}")
        if (evaluations := self.h_cycles * (self.l_cycles + 1)) > MAX_EVALUATIONS:
            raise ValueError(
                f"h_cycles x (l_cycles + 1) must be at most {MAX_EVALUATIONS}, got {evaluations}"
            )
        if self.mixer not in ("mlp", "attention"):
            raise ValueError(f"mixer must be 'mlp' or 'attention', got {self.mixer!r}")
        if self.mixer == "attention" and self.d_model % (2 * self.n_heads):
            raise ValueError(
                f"d_model {self.d_model} must be a multiple of 2 x {self.n_heads} heads"
            )

    @property
    def positions(self) -> int:
        return self.prefix + self.cells

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

    steps: int = setting(50_000, "optimizer steps of the whole run")
    budget: float | None = setting(
        None,
        "wall clock of the whole run instead of steps: 22m, 90s, 1.5h",
        parser=minutes,
        metavar="TIME",
    )
    target: float = setting(
        0.0, "stop at a validation with this share exact at its last supervision step; 0: never"
    )
    batch_size: int = setting(768, "puzzles in flight, over all processes")
    micro_batches: int = setting(1, "parts in which a batch is computed, to need less memory")
    auto_batch: bool = setting(
        False, "double the micro-batches where the memory does not suffice (one process)"
    )
    n_sup: int = setting(16, "supervision steps of a puzzle before its slot is refilled")
    explore: float = setting(0.1, "chance that a slot may not halt before a random step")
    optimizer: Literal["adamw", "muon"] = setting("adamw", "muon: for matrices, AdamW for the rest")
    lr: float = setting(1e-4, "peak AdamW learning rate")
    muon_lr: float = setting(0.02, "peak Muon learning rate")
    muon_decay: float = setting(0.0, "Muon weight decay")
    beta1: float = setting(0.9, "AdamW beta 1")
    beta2: float = setting(0.95, "AdamW beta 2")
    weight_decay: float = setting(1.0, "AdamW weight decay")
    warmup: float = setting(0.03, "fraction of the run with a rising learning rate")
    decay: Literal["constant", "cosine"] = setting("constant", "learning rate after warm-up")
    curriculum: bool = setting(False, "depth curriculum (1,2) -> (2,4) -> full at 30 and 60 %")
    loss: Literal["stablemax", "softmax"] = setting("stablemax", "answer cross-entropy")
    smoothing: float = setting(0.0, "label smoothing of the softmax cross-entropy")
    halt_weight: float = setting(0.5, "weight of the halting loss")
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
        positive(self, "steps", "batch_size", "micro_batches", "n_sup")
        positive(self, "eval_every", "save_every", "log_every")
        if self.budget is not None and not 0 < self.budget < float("inf"):
            raise ValueError(f"budget must be above 0 minutes and finite, got {self.budget}")
        for name in ("target", "explore", "warmup", "smoothing", "ema"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
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
