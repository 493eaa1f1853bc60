"""Settings of the SAE commands. The command line reads them, so this needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trm_interp.figures.look import (
    ON_PAPER,
    SELF_CONTAINED_HELP,
    STYLE_HELP,
    WIDTH_HELP,
    Style,
    Width,
)
from trm_interp.recording.settings import Centre
from trm_interp.runtime.existing import Existing
from trm_interp.runtime.limits import parse_indices
from trm_interp.runtime.settings import argument, in_range, positive, required, setting
from trm_interp.subjects.settings import STATIC_HELP, Device

Arch = Literal["standard", "gated", "topk", "batchtopk", "jumprelu"]
Variant = Literal["saelens", "paper"]
Revive = Literal["none", "resample"]
BASELINES = ("pca", "pca-bits", "k-means", "random-encoder")
LARGEST_COUNT = 10**12  # of steps, rows, features a dimension, MB: far above any run
FEWEST_SURROGATES, MOST_SURROGATES = 19, 100_000
STORE_HELP = "store that `trm-interp collect` wrote"
SITES_HELP = (
    "comma-separated states or sites of the store, pooled: by name, such as z_L or "
    "blocks.0.hook_mlp_out, or states (all of them) or resid (its residual sites)"
)
SAE_HELP = "folder of a trained SAE"
CKPT_HELP, RECORDED = "checkpoint of the store", "the one that it was recorded from"
SITE_HELP, FIRST = "site to look at", "the first one that the SAE was trained on"
LOOP = {"loop": True}  # of sae-eval
FORCE_HELP = "use an SAE of another checkpoint than the store's; the result records it"


def names_in(text: str) -> list[str]:
    """The different names of a comma-separated list, in order.

    >>> names_in("z_L, z_H,z_L")
    ['z_L', 'z_H']
    """
    return list(dict.fromkeys(name.strip() for name in text.split(",")))


@dataclass(frozen=True, kw_only=True)
class TrainSAEConfig:
    """Train a sparse autoencoder on activations of stores. Written whole into its card."""

    stores: list[Path] = argument(f"{STORE_HELP}, or several, whose puzzles are pooled")
    site: str = required(SITES_HELP)
    out: Path = required("folder of the SAE, which plain sae-lens opens")
    arch: Arch = setting("gated", "architecture, by its name in sae-lens")
    gated_variant: Variant = setting(
        "saelens",
        "gated loss: sae-lens' own, or arXiv 2404.16014 (unit-norm rows, frozen decoder)",
        needs={"arch": ("gated",)},
    )
    expansion: int = setting(32, "features per dimension of the site", most=LARGEST_COUNT)
    max_steps: int = setting(
        2000,
        "optimizer steps of the whole run",
        flags="--train-steps",
        old="--max-steps",
        most=10**9,
    )
    batch_size: int = setting(1024, "rows (one position at one tick) per step", most=LARGEST_COUNT)
    seed: int = setting(0, "seed of the split, the order and the weights")
    lr: float = setting(1e-3, "peak Adam learning rate", most=1000)
    l1: float = setting(
        5.0,
        "sparsity weight of standard and gated",
        most=1e6,
        needs={"arch": ("standard", "gated")},
    )
    l0: float = setting(1.0, "sparsity weight of jumprelu", most=1e6, needs={"arch": ("jumprelu",)})
    k: int = setting(
        32,
        "active features of a row, of topk and batchtopk",
        flags="--active",
        old="--k",
        needs={"arch": ("topk", "batchtopk")},
    )
    warmup: float = setting(0.1, "fraction of the run with a rising learning rate and sparsity")
    revive: Revive = setting(
        "none",
        "dead features: resample gives them the directions of badly reconstructed rows, in every "
        "architecture; topk and batchtopk also have sae-lens' auxiliary loss for them",
    )
    revive_every: int = setting(
        200,
        "optimizer steps between revivals, none in the last fifth",
        needs={"revive": ("resample",)},
    )
    ticks: str | None = setting(None, "ticks of the run, such as 0-20,315-335", otherwise="all")
    held_out: float = setting(0.2, "share of the puzzles held out, on which metrics are measured")
    centre: Centre = setting(
        "rows",
        "what is taken from every row: the mean row, or for puzzle also the mean of its puzzle and "
        "position over the ticks, so that what stays the same during a run does not count",
    )
    shuffle_ticks: bool = setting(
        False,
        "a control: permute the ticks of each coordinate on its own, within puzzle and position",
    )
    balance: bool = setting(False, "as many rows of failed runs as of solved ones")
    mixed_checkpoints: bool = setting(
        False, "pool stores that were recorded from different checkpoints; the card names them"
    )
    buffer_mb: int = setting(
        512,
        "memory of the shuffle buffer in MB, of all processes together; half of it is read ahead",
        most=LARGEST_COUNT,
    )
    stats_puzzles: int = setting(64, "training puzzles from which centre and scale are measured")
    autocast: bool = setting(False, "bfloat16 products; weights stay float32")
    device: Device = setting("auto", "where to compute; auto takes a GPU where there is one")
    save_every: int = setting(200, "optimizer steps between saved states")
    log_every: int = setting(20, "optimizer steps between rows of metrics.jsonl")
    resume: bool = setting(False, "continue exactly where a run was stopped or killed")
    overwrite: bool = setting(False, "replace an existing run")

    def __post_init__(self) -> None:
        in_range(TrainSAEConfig, vars(self))
        positive(self, "expansion", "max_steps", "batch_size", "k", "buffer_mb", "stats_puzzles")
        positive(self, "save_every", "log_every", "revive_every")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must be between 0 and 1, got {self.held_out}")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup must be between 0 and 1, got {self.warmup}")
        if not self.lr > 0:
            raise ValueError(f"lr must be above 0, got {self.lr}")
        for name in ("l1", "l0"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        Existing(self.resume, self.overwrite)  # one of them at most
        parse_indices(self.ticks, "ticks")
        if not self.stores:
            raise ValueError("stores: name one at least")

    def revives_at(self, step: int) -> bool:
        """Whether dead features are revived after so many optimizer steps."""
        return self.revive == "resample" and step % self.revive_every == 0

    @property
    def sites(self) -> list[str]:
        return names_in(self.site)


@dataclass(frozen=True, kw_only=True)
class OnSAE:
    """Settings that all commands on a trained SAE share."""

    sae: Path = argument(SAE_HELP)
    store: Path = argument(STORE_HELP)
    site: str | None = setting(None, SITE_HELP, otherwise=FIRST)
    limit: int | None = setting(64, "only the first so many held-out puzzles")
    all_puzzles: bool = setting(False, "all puzzles of the store, not only held-out ones")
    device: Device = setting("auto", "where to compute; auto takes a GPU where there is one")
    seed: int = setting(0, "seed of resampling and of shuffled controls")
    force_mismatch: bool = setting(False, FORCE_HELP)

    def __post_init__(self) -> None:
        in_range(type(self), vars(self))
        positive(self, "limit")

    def sites(self, trained: Sequence[str]) -> list[str]:
        """Names of the sites that are looked at, of an SAE trained on these; none if neither
        says one."""
        return [self.site] if self.site else list(trained[:1])


@dataclass(frozen=True, kw_only=True)
class EvalSAEConfig(OnSAE):
    """Measure an SAE on held-out puzzles, in the loop as well."""

    site: str | None = setting(
        None,
        f"{SITES_HELP}; several are measured together and each by itself",
        otherwise="all that the SAE was trained on",
    )
    baselines: str | None = setting(
        None,
        "comma-separated codes that are fitted to the SAE's training puzzles and measured beside "
        f"it: {', '.join(BASELINES)}, all, or none",
        otherwise="pca and pca-bits, where the store holds those puzzles",
    )
    ckpt: str | None = setting(None, CKPT_HELP, otherwise=RECORDED, needs=LOOP)
    tick: int | None = setting(
        None, "also splice at this one tick of the run", otherwise="none", needs=LOOP
    )
    loop: bool = setting(True, "splice reconstructions into the recursion")
    batch_size: int = setting(32, "puzzles at once in the loop", needs=LOOP)
    out: Path | None = setting(None, "JSON file", otherwise="measures.json in the SAE's folder")
    overwrite: bool = setting(False, "replace the measures of an earlier evaluation")

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "batch_size")
        if unknown := sorted({*self.named_baselines} - {*BASELINES}):
            raise ValueError(f"baselines: {unknown[0]!r} is none of {', '.join(BASELINES)}")

    def sites(self, trained: Sequence[str]) -> list[str]:
        return names_in(self.site) if self.site else list(trained)

    @property
    def named_baselines(self) -> list[str]:
        """Those that are asked for, or would be where nothing is said."""
        if self.baselines in ("all", "none"):
            return list(BASELINES) if self.baselines == "all" else []
        return names_in("pca,pca-bits" if self.baselines is None else self.baselines)


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig(OnSAE):
    """What the features do over time and on the board."""

    out: Path = required("folder for the dashboard, the tables and figure 1")
    ckpt: str | None = setting(None, CKPT_HELP, otherwise=RECORDED)
    top: int = setting(10, "most active features in figure 1")
    examples: int = setting(6, "top-activating examples per feature")
    surrogates: int = setting(
        2000,
        "aperiodic series of each kind behind the test for recurrence, at least 19",
        old="--shuffles",
        most=MOST_SURROGATES,
    )
    static: bool = setting(False, STATIC_HELP)
    style: Style = setting("screen", STYLE_HELP)
    width: Width = setting("single", WIDTH_HELP, needs=ON_PAPER)
    self_contained: bool = setting(False, SELF_CONTAINED_HELP)
    overwrite: bool = setting(False, "replace what an earlier `features` wrote")

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "top", "examples", "surrogates")
        if self.surrogates < FEWEST_SURROGATES:
            raise ValueError(
                f"surrogates must be at least {FEWEST_SURROGATES}, with which p can be 0.05; "
                f"got {self.surrogates}"
            )


@dataclass(frozen=True, kw_only=True)
class SteerConfig(OnSAE):
    """Change one feature while the model runs, with matched random features as controls."""

    feature: int = required("feature to change")
    mode: Literal["ablate", "clamp", "steer"] = setting(
        "ablate", "activation to 0, activation to --value, or --value more along the decoder row"
    )
    value: float = setting(
        1.0,
        "for clamp and steer, in units of the feature's largest activation",
        needs={"mode": ("clamp", "steer")},
    )
    ckpt: str | None = setting(None, CKPT_HELP, otherwise=RECORDED)
    ticks: str | None = setting(None, "ticks of the run, such as 0-20", otherwise="all")
    cells: str | None = setting(
        None,
        "cells of the board, such as 0-5",
        otherwise="all",
        flags="--at-cells",
        old="--cells",
    )
    controls: int = setting(10, "matched random features")
    batch_size: int = setting(32, "puzzles at once")
    out: Path | None = setting(None, "also write the result as JSON", otherwise="not written")
    overwrite: bool = setting(False, "replace an earlier result in --out", needs={"out": True})

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "controls", "batch_size")
        if abs(self.value) > 1e6:
            raise ValueError(f"value must lie within +-1000000, got {self.value}")
        if self.feature < 0:
            raise ValueError(f"feature must be at least 0, got {self.feature}")
        parse_indices(self.ticks, "ticks")
        parse_indices(self.cells, "cells")
