"""Settings of training. Needs no torch."""

from dataclasses import dataclass
from typing import Literal

from trm_interp.runtime.settings import in_range, positive, setting


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


MUON = {"optimizer": ("muon",)}
SIGN = {"prefix_optimizer": ("sign-sgd",)}


@dataclass(frozen=True)
class TrainConfig:
    """How to train. The defaults are the published recipe at a batch that suits one GPU."""

    steps: int = setting(
        50_000,
        "optimizer steps of the whole run",
        flags="--train-steps",
        old="--steps",
        most=10**9,
        needs={"budget": None},
    )
    budget: float | None = setting(
        None,
        "wall clock of the whole run instead of steps: 22m, 90s, 1.5h",
        parser=minutes,
        metavar="TIME",
        otherwise="by steps",
        most=525_600,  # a year
    )
    target: float = setting(
        0.0,
        "stop at a validation with this share exact at its last supervision step; 0: never",
        flags="--stop-at",
        old="--target",
    )
    batch_size: int = setting(768, "puzzles in flight, over all processes", most=10**6)
    micro_batches: int = setting(1, "parts in which a batch is computed, to need less memory")
    auto_batch: bool = setting(
        False, "double the micro-batches where the memory does not suffice (one process)"
    )
    n_sup: int = setting(16, "supervision steps of a puzzle before its slot is refilled", most=1000)
    n_sup_warm: int = setting(
        0, "supervision steps of a puzzle in the first part of the run; 0: no such part", most=1000
    )
    n_sup_warm_until: float = setting(0.25, "fraction of the run at which that part ends")
    stagger: bool = setting(
        False, "slots that begin together end their first puzzles one after another"
    )
    easy_until: float = setting(
        0.0,
        "fraction of the run in which half of the puzzles are drawn from the easiest, at first a "
        "tenth of all and in the end all; 0: never",
    )
    early_weight: float = setting(
        1.0,
        "weight of the first supervision step's loss, of the last's; geometric between",
        most=1e3,
    )
    explore: float = setting(0.1, "chance that a slot may not halt before a random step")
    optimizer: Literal["adamw", "muon"] = setting("adamw", "muon: for matrices, AdamW for the rest")
    lr: float = setting(1e-4, "peak AdamW learning rate", most=1000)
    muon_lr: float = setting(0.02, "peak Muon learning rate", most=1000, needs=MUON)
    muon_decay: float = setting(0.0, "Muon weight decay", most=1000, needs=MUON)
    prefix_optimizer: Literal["adamw", "sign-sgd"] = setting(
        "adamw", "of the puzzle embeddings; sign-sgd as in the public code"
    )
    prefix_lr: float = setting(1e-4, "peak sign-SGD learning rate", most=1000, needs=SIGN)
    prefix_decay: float = setting(1.0, "sign-SGD weight decay", most=1000, needs=SIGN)
    beta1: float = setting(0.9, "AdamW beta 1")
    beta2: float = setting(0.95, "AdamW beta 2")
    weight_decay: float = setting(1.0, "AdamW weight decay", most=1000)
    warmup: float = setting(0.03, "fraction of the run with a rising learning rate")
    decay: Literal["constant", "cosine", "late"] = setting(
        "constant", "learning rate after warm-up; late: constant, then to 0 in the last fifth"
    )
    curriculum: bool = setting(False, "depth curriculum (1,2) -> (2,4) -> full at 30 and 60 %")
    loss: Literal["stablemax", "softmax"] = setting("stablemax", "answer cross-entropy")
    smoothing: float = setting(0.0, "label smoothing of the softmax cross-entropy")
    halt_weight: float = setting(0.5, "weight of the halting loss", most=1e6)
    clip: float = setting(1.0, "gradient norm limit; 0 for none")
    ema: float = setting(0.999, "decay of the moving average of the weights")
    augment: bool = setting(True, "draw a random symmetry of every puzzle")
    dtype: Literal["float32", "bfloat16"] = setting("float32", "compute dtype; weights are float32")
    compile: bool = setting(False, "torch.compile the network (needs a C++ compiler on CPU)")
    graphs: bool = setting(
        True, "a compiled step as one CUDA graph (one GPU)", needs={"compile": True}
    )
    fused_mixer: bool = setting(
        False,
        "the token mixer as one Triton kernel, if it matches and is faster (one NVIDIA GPU)",
        needs={"mixer": ("mlp",)},
    )
    eval_every: int = setting(500, "optimizer steps between validations")
    save_every: int = setting(100, "optimizer steps between saved states")
    keep_every: int = setting(
        0,
        "optimizer steps between checkpoints that are kept in OUT/kept; 0: keep none",
        most=10**9,
    )
    log_every: int = setting(10, "optimizer steps between rows of metrics.jsonl")
    seed: int = setting(0, "of weights, order, symmetries and exploration")

    def __post_init__(self) -> None:
        in_range(TrainConfig, vars(self))
        positive(self, "steps", "batch_size", "micro_batches", "n_sup")
        positive(self, "eval_every", "save_every", "log_every")
        if self.budget is not None and not 0 < self.budget < float("inf"):
            raise ValueError(f"budget must be above 0 minutes and finite, got {self.budget}")
        for name in (
            "target",
            "explore",
            "warmup",
            "smoothing",
            "ema",
            "n_sup_warm_until",
            "easy_until",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        if not 0 <= self.n_sup_warm <= self.n_sup:
            raise ValueError(
                f"n_sup_warm must be from 0 to n_sup, which is {self.n_sup}, got {self.n_sup_warm}"
            )
        if not self.early_weight > 0:
            raise ValueError(f"early_weight must be above 0, got {self.early_weight}")
        if self.micro_batches > self.batch_size:
            raise ValueError(
                f"micro_batches {self.micro_batches} must not be above batch_size {self.batch_size}"
            )
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be from 0 to below 1, got {getattr(self, name)}")
        not_negative = ("lr", "muon_lr", "muon_decay", "weight_decay", "halt_weight", "clip")
        for name in (*not_negative, "prefix_lr", "prefix_decay", "keep_every"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name, allowed in {
            "optimizer": ("adamw", "muon"),
            "prefix_optimizer": ("adamw", "sign-sgd"),
            "decay": ("constant", "cosine", "late"),
            "loss": ("stablemax", "softmax"),
            "dtype": ("float32", "bfloat16"),
        }.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        if self.smoothing and self.loss != "softmax":
            raise ValueError(f"smoothing {self.smoothing} needs loss 'softmax', got {self.loss!r}")
