"""Train the flagship in pieces, each within a wall-clock budget, state carried in and out.

    python experiments/flagship/train.py --train data/extreme/train.csv \\
        --val data/extreme/val.csv --state runs/flagship --budget 9
    python experiments/flagship/train.py ... --state runs/flagship --budget 9 --resume
    python experiments/flagship/evaluate.py --state runs/flagship --test data/extreme/test.csv ...

On the official data set (`trm-interp data download sudoku-extreme`), as the paper does, 1 000 of
its training puzzles: `--train data/sudoku-extreme/train.csv --sample 1000`.

A piece ends with a validation and is written `--reserve` seconds before its budget, which begins
with the process and includes compilation; the schedule of the run does not count compilation. The
state is a folder of checksummed files of at most 15 MiB (`core/training/portable.py`), 60 MB for
the published model, with metrics.jsonl in the same folder; the puzzles in flight are given up at
the end of a piece, so a run of three pieces equals a run that gives them up at the same two steps.
Needs torch, numpy, safetensors, pandas, h5py, numba, rich, typer and jaxtyping, and this source
tree on PYTHONPATH.

Presets: `flagship` is the published model and recipe without prefix positions (the lean variant,
which scores the same), AdamW, stablemax, with the depth curriculum and a cosine over `--total`
minutes; `flagship-muon` the 8 000-step recipe; `tiny` a rehearsal on 4x4 puzzles. `--total fit`
lays the schedule over what this piece has time for, by the measured durations of its steps,
validations and saves: the run is over when the piece is.
"""

import time

BEGAN = time.monotonic()

import argparse  # noqa: E402
import platform  # noqa: E402
import sys  # noqa: E402
from collections import Counter, deque  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import asdict, fields, replace  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from trm_interp.core.checkpoints.folder import load_checkpoint  # noqa: E402
from trm_interp.core.models.registry import config_from  # noqa: E402
from trm_interp.core.models.trm_config import TRMConfig  # noqa: E402
from trm_interp.core.training.loop import METRICS_FILE, train  # noqa: E402
from trm_interp.core.training.portable import INDEX, load_portable, save_portable  # noqa: E402
from trm_interp.core.training.settings import TrainConfig  # noqa: E402
from trm_interp.core.training.trainer import Trainer  # noqa: E402
from trm_interp.runtime.errors import UserError, in_one_line  # noqa: E402
from trm_interp.runtime.runs import Run  # noqa: E402
from trm_interp.subjects.opening import open_device  # noqa: E402
from trm_interp.subjects.presets import PRESETS  # noqa: E402
from trm_interp.subjects.training import train_data  # noqa: E402
from trm_interp.tasks.base import PuzzleSet  # noqa: E402
from trm_interp.tasks.registry import load_puzzles  # noqa: E402

FIT = "fit"  # in place of minutes
FILES = (INDEX, METRICS_FILE, "step-*.safetensors")
SAVING_S, VALIDATING_S = 5.0, 10.0  # guesses, until the first of them is over
RECENT = 50  # steps


class Deadline:
    """When a piece has to stop: so early that a step, a validation and a save still fit in."""

    def __init__(self, minutes: float, reserve: float) -> None:
        self.end = BEGAN + 60 * minutes - reserve
        self.last = time.monotonic()
        self.steps: deque[float] = deque(maxlen=RECENT)
        self.no_measure = 2  # looks: before the first step, and after it, for it may compile
        self.needs = {"validate": VALIDATING_S, "save": SAVING_S}  # seconds that the last one took

    def reached(self) -> bool:
        """Asked before the first optimizer step and after every one."""
        now = time.monotonic()
        if self.no_measure:
            self.no_measure -= 1
        else:
            self.steps.append(now - self.last)
        self.last = now
        return self.left() <= 0

    def left(self) -> float:
        """Seconds for further steps at the last look."""
        longest = max(self.steps, default=0.0)
        return self.end - self.last - longest - 1.2 * sum(self.needs.values())

    def timed(self, name: str, body: Callable[[], Any]) -> Any:
        """Do it, and remember how long it took, which is no step's time."""
        began = time.monotonic()
        done = body()
        self.needs[name] = time.monotonic() - began
        self.last += self.needs[name]
        return done


class Fitted:
    """A deadline that lays the schedule of the run over the time until then.

    It validates once (twice where the first compiles), without consequences, to learn how long that
    takes.
    """

    def __init__(self, trainer: Trainer, deadline: Deadline) -> None:
        self.trainer, self.deadline = trainer, deadline
        kept = trainer.best, trainer.best_weights, trainer.validated_at
        for _ in range(1 + trainer.config.compile):
            deadline.timed("validate", trainer.validate)
        trainer.best, trainer.best_weights, trainer.validated_at = kept

    def reached(self) -> bool:
        """Asked as the deadline is; the budget of the run is what is used and what is left."""
        is_reached = self.deadline.reached()
        (left,) = self.trainer.ranks.most(max(self.deadline.left(), 1e-3))
        budget = (self.trainer.seconds + left) / 60
        self.trainer.config = replace(self.trainer.config, budget=budget)
        return is_reached


def whole_batches(puzzles: PuzzleSet, batch_size: int, compiled: bool) -> PuzzleSet:
    """The first of them in whole batches, so that one graph is compiled; said where some are left.

    All of them where nothing is compiled or one batch holds them.
    """
    rest = len(puzzles) % batch_size
    if not compiled or len(puzzles) <= batch_size or not rest:
        return puzzles
    kept = len(puzzles) - rest
    print(f"{puzzles.source}: the first {kept} puzzles, in whole batches of {batch_size}")
    return puzzles.subset(np.arange(kept))


def open_puzzles(args: argparse.Namespace, settings: dict[str, Any]) -> tuple[PuzzleSet, PuzzleSet]:
    """Those to train on, a sample with --sample, and those to validate on."""
    training = load_puzzles(args.train, args.skip_bad)
    validation = load_puzzles(args.val, args.skip_bad, limit=args.val_limit)
    if args.sample:
        order = np.random.default_rng(args.seed).permutation(len(training))
        training = training.subset(np.sort(order[: args.sample]))
    batch_size = settings.get("batch_size", TrainConfig.batch_size)
    return training, whole_batches(validation, batch_size, settings.get("compile", False))


def open_trainer(args: argparse.Namespace) -> tuple[Trainer, dict[str, Any]]:
    """The run that the options describe, resumed with --resume, and what its state records."""
    preset = PRESETS[args.preset] | dict(args.set)
    if args.total:
        preset["budget"] = args.budget if args.total == FIT else args.total
    elif "steps" in dict(args.set):  # they stand in place of a preset's wall clock
        preset["budget"] = None
    in_model = {f.name: preset.pop(f.name) for f in fields(TRMConfig) if f.name in preset}
    if args.init and (set(dict(args.set)) & set(TRMConfig.__dataclass_fields__)):
        raise UserError("--init takes the model's shape from the checkpoint: leave it out of --set")
    training, validation = open_puzzles(args, preset)
    task = training.task
    data = train_data(training, validation, bool(preset.get("easy_until")))
    about = {
        "task": task.name,
        "preset": args.preset,
        "data": {"train": training.sha256, "validation": validation.sha256},
        "sources": sources(args.train, training.lines),
        "sample": args.sample,
        "puzzles": len(training),
        "pieces": [],
    }
    device = open_device(args.device)
    start = load_checkpoint(args.init) if args.init else None
    if start is not None:
        about["init"] = {"sha256": start.sha256, "card": start.card.get("command")}
        in_model = asdict(start.model.config)
        in_model["architecture"] = start.model.architecture
    try:
        model = config_from({**in_model, "cells": task.cells, "vocab": task.vocab})
        config = TrainConfig(
            **preset,  # type: ignore[arg-type]
            seed=args.seed,
            save_every=args.save_every,
            auto_batch=args.auto_batch,
        )
        trainer = Trainer(model, config, data, args.state, device)
    except ValueError as error:
        raise UserError(str(error)) from None
    trainer.tell = lambda line: print(line, flush=True)
    if start is not None:
        trainer.model.load_state_dict(start.model.state_dict())
        trainer.average.mean = [weight.detach().clone() for weight in trainer.average.live]
    if args.resume:
        about = load_portable(trainer, args.state)
        log = args.state / METRICS_FILE
        rows = len(log.read_text().splitlines()) if log.exists() else 0  # a kill before the first
        if rows < trainer.rows:
            raise UserError(f"{log} is missing or too short: bring it with the state")
    return trainer, about


def _is_older_state(folder: Path) -> bool:
    """Whether it holds a state from before there were markers, or one that lost its marker on the
    way between machines."""
    return (folder / INDEX).is_file() or (folder / METRICS_FILE).is_file()


def sources(file: Path, lines: NDArray[np.int64]) -> dict[str, int]:
    """How many of the puzzles on these lines come from where, in a CSV that says so."""
    if file.is_dir():
        return {}
    rows = file.read_text(errors="replace").splitlines()
    header = rows[0].split(",")
    if "source" not in header:
        return {}
    at = header.index("source")
    return dict(Counter(rows[line - 1].split(",")[at] for line in lines))


def piece(args: argparse.Namespace) -> Trainer:
    """Train until the run or the budget is used up, and save; the state has one writer at a time.

    SIGINT and SIGTERM end it after the step that runs, saved, without a validation.
    """
    with Run(
        args.state,
        "flagship",
        FILES,
        resume=args.resume,
        overwrite=args.overwrite,
        unmarked=_is_older_state,
        stops_at_steps=True,
    ) as run:
        return train_piece(args, run.should_stop)


def train_piece(args: argparse.Namespace, should_stop: Callable[[], bool]) -> Trainer:
    """A piece in a folder that is held."""
    trainer, about = open_trainer(args)
    before, first = about["pieces"], trainer.step_count
    cuda = trainer.device.type == "cuda"
    deadline = Deadline(args.budget, args.reserve)
    over = Fitted(trainer, deadline) if args.total == FIT else deadline
    validate = trainer.validate
    trainer.validate = lambda: deadline.timed("validate", validate)

    def write() -> None:
        now = {
            "command": " ".join(["python", *sys.argv]),
            "hardware": torch.cuda.get_device_name() if cuda else platform.processor() or "cpu",
            "torch": torch.__version__,
            "steps": [first, trainer.step_count],
            "seconds": round(time.monotonic() - BEGAN, 1),
        }
        save_portable(trainer, args.state, about | {"pieces": [*before, now]})

    def save() -> None:
        deadline.timed("save", write)

    def is_over() -> bool:
        return over.reached() or should_stop()

    in_time = lambda: not should_stop()  # noqa: E731
    train(trainer, report, is_over, save=save, validate_last=in_time)
    if trainer.step_count == first and not trainer.finished() and in_time():
        raise UserError(f"--budget {args.budget}: over before the first optimizer step")
    return trainer


def report(row: dict[str, Any]) -> None:
    if "val_exact" in row:
        curve = " ".join(f"{100 * share:.1f}" for share in row["val_exact"])
        print(f"step {row['step']}: validation exact % by step {curve}", flush=True)
    elif row["step"] % 100 == 0:
        shown = {k: f"{row[k]:.4g}" for k in ("fraction", "loss", "exact", "steps_per_s")}
        print(f"step {row['step']}: {' '.join(f'{k} {v}' for k, v in shown.items())}", flush=True)


def setting(text: str) -> tuple[str, Any]:
    """NAME=VALUE of a field of TRMConfig or TrainConfig."""
    name, _, value = text.partition("=")
    kinds = {f.name: type(f.default) for f in (*fields(TRMConfig), *fields(TrainConfig))}
    if name not in kinds:
        raise argparse.ArgumentTypeError(f"no setting {name!r}")
    if kinds[name] is bool:
        if value not in ("true", "false"):
            raise argparse.ArgumentTypeError(f"{name} is true or false, not {value!r}")
        return name, value == "true"
    try:
        return name, value if kinds[name] is str else kinds[name](value)
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"{value!r} is no {name}") from None


def total(text: str) -> float | str:
    """Minutes of the whole run, or the word `fit`."""
    if text == FIT:
        return text
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither minutes nor {FIT!r}") from None


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, required=True, help="training puzzles")
    parser.add_argument("--val", type=Path, required=True, help="validation puzzles")
    parser.add_argument("--state", type=Path, required=True, help="folder of the state")
    parser.add_argument("--budget", type=float, required=True, help="minutes of this piece")
    parser.add_argument(
        "--total",
        type=total,
        metavar="MINUTES|fit",
        help="minutes of the whole run (flagship: 25; the other presets count steps), or `fit`: as "
        "many steps as this piece has time for",
    )
    parser.add_argument("--preset", default="flagship", choices=list(PRESETS))
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sample", type=int, help="train on so many puzzles, drawn by the seed")
    parser.add_argument("--init", help="checkpoint whose shape and weights the run starts from")
    parser.add_argument("--val-limit", type=int, default=500, help="validation puzzles used")
    parser.add_argument(
        "--save-every",
        type=int,
        default=2000,
        help="steps between saves, each of which gives up the puzzles in flight",
    )
    parser.add_argument("--auto-batch", action="store_true", help="halve what does not fit")
    parser.add_argument("--reserve", type=float, default=30, help="seconds left when it has ended")
    parser.add_argument("--device", default="auto", help="auto takes a GPU where there is one")
    parser.add_argument("--skip-bad", action="store_true", help="leave out invalid puzzles")
    parser.add_argument("--resume", action="store_true", help="go on with the state")
    parser.add_argument("--overwrite", action="store_true", help="start over")
    args = parser.parse_args(arguments)
    if args.budget <= 0 or 60 * args.budget <= args.reserve:
        parser.error(f"--budget must be above the reserve of {args.reserve} s")
    return args


def main() -> None:
    args = parse()
    with in_one_line():
        trainer = piece(args)
    best = trainer.best.get("exact", -1.0)
    print(
        f"wrote {args.state} after {trainer.step_count} optimizer steps "
        f"({trainer.fraction():.1%} of the run, best {best:.1%} of the validation puzzles), "
        f"{time.monotonic() - BEGAN:.0f} s; log in {args.state / METRICS_FILE}"
    )


if __name__ == "__main__":
    main()
