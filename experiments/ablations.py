"""Does the order of the TRM paper's ablations hold at the size of the checkpoints that ship?

    python experiments/ablations.py --out runs/ablations --plan
    python experiments/ablations.py --out runs/ablations --seeds 0 1 2
    python experiments/ablations.py --out runs/ablations --only trm single-z --stop steps

Trains small models on `artifacts/data/sudoku6` with the recipe of trm-sudoku6, all of about its
0.17 M weights, and solves test puzzles with each. A run has as many optimizer steps as the TRM
(`--stop steps`) or as many training operations (`--stop flops`). Writes ablations.csv (a row a run
and supervision step), orders.csv (a row a model: published numbers, ours, whether the order holds),
and both as tables in ablations.md and ablations.tex.

Runs that are there are not run again; after a kill the same command goes on. `--measure` times an
optimizer step of every model, for the minutes that `--plan` states.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from ablation_tables import REFERENCE, STOPS, Run, write_tables

from trm_interp.core.flops import step_flops
from trm_interp.core.models.config import ModelConfig
from trm_interp.core.models.registry import config_class
from trm_interp.core.training.settings import TrainConfig
from trm_interp.core.training.trainer import Trainer
from trm_interp.report.sweep.engine import run_jobs
from trm_interp.report.sweep.jobs import Job, with_bases
from trm_interp.runtime.errors import UserError, in_one_line
from trm_interp.runtime.files import sha256_of, write_json
from trm_interp.runtime.progress import progress
from trm_interp.subjects.opening import load_puzzles
from trm_interp.subjects.presets import PRESETS
from trm_interp.subjects.training import train_data

DATA = Path(__file__).parent.parent / "artifacts/data/sudoku6"
STEPS = 16  # supervision steps of a test
VALIDATIONS, VALIDATED = 10, 128  # of every run: how often, on how many puzzles
SECONDS = "seconds.json"  # measured here, in place of Model.seconds


@dataclass(frozen=True)
class Model:
    """`changed`: options of `trm-interp train` besides those of the preset. `published`: exact % on
    Sudoku-Extreme in `source` of arXiv 2510.04871. `read_at`: the supervision step that counts, the
    last that it is trained for. `seconds` of a core that an optimizer step of the preset's batch
    took (`--measure`); 0: by its operations, at the rate of the TRM."""

    title: str
    published: float | None = None
    source: str = ""
    architecture: str = "trm"
    preset: str = "sudoku6"
    changed: dict[str, object] = field(default_factory=dict)
    read_at: int = STEPS
    seconds: float = 0.0


MODELS = {
    "trm": Model("TRM", 87.4, "table 1", seconds=0.54),
    "hrm": Model("HRM", 55.0, "table 1", "hrm", "hrm6", seconds=0.65),
    "single-z": Model("single z", 71.9, "table 2", "trm-single-z", seconds=0.58),
    "separate": Model(
        "separate f_L and f_H, narrower",
        *(82.4, "table 1"),
        changed={"separate_networks": True, "d_model": 64, "multiple": 8},
        seconds=0.35,
    ),
    "one-step": Model(
        "one-step gradient", 56.5, "table 1", changed={"one_step_gradient": True}, seconds=0.44
    ),
    "equilibrium": Model("equilibrium", None, "", "equilibrium", "equilibrium6", seconds=1.36),
    "direct": Model(
        "direct prediction", 0.0, "table 4", "direct", "direct6", read_at=1, seconds=0.06
    ),
    # further rows of the paper's tables, and variants: with --only
    "hrm-learned": Model(
        *("HRM, learned positions", 55.0, "table 1", "hrm", "hrm6"),
        changed={"position_encoding": "learned"},
        seconds=0.65,
    ),
    "multi-z": Model("multi-scale z (six)", 77.6, "table 2", "trm-multi-z"),
    "act": Model("ACT with the continue loss", 86.1, "table 1", "trm-continue"),
    "separate-wide": Model(
        "separate f_L and f_H", 82.4, "table 1", changed={"separate_networks": True}
    ),
    "no-ema": Model("no EMA", 79.9, "table 1", changed={"ema": 0.0}),
    "4-layers": Model("4 layers, n 3", 79.5, "table 1", changed={"n_layers": 4, "l_cycles": 3}),
    "attention": Model("self-attention", 74.7, "table 1", changed={"mixer": "attention"}),
    "t2-n2": Model("T 2, n 2", 73.7, "table 1", changed={"h_cycles": 2, "l_cycles": 2}),
    "direct-supervised": Model(
        *("direct, 16 supervision steps", None, "", "direct", "direct6"), changed={"n_sup": 16}
    ),
    "direct-deep": Model(
        *("direct, 42 blocks", None, "", "direct", "direct6"),
        changed={"n_layers": 42},
        read_at=1,
    ),
}
DEFAULT = ("trm", "hrm", "single-z", "separate", "one-step", "equilibrium", "direct")


@dataclass(frozen=True)
class Plan:
    """The runs that are asked for, as jobs: a training and a test each."""

    args: argparse.Namespace

    @property
    def out(self) -> Path:
        return self.args.out

    @cached_property
    def task(self) -> Any:
        return load_puzzles(self.args.data / "val.txt", limit=1).task

    @cached_property
    def identity(self) -> str:
        return " ".join(sha256_of(self.args.data / f"{n}.txt") for n in ("train", "val", "test"))

    @cached_property
    def measured(self) -> dict[str, float]:
        """Seconds of an optimizer step that `--measure` took here."""
        file = self.out / SECONDS
        return json.loads(file.read_text()) if file.exists() else {}

    def seconds(self, name: str) -> float:
        """Of a core, for an optimizer step of the preset's batch."""
        if known := self.measured.get(name) or MODELS[name].seconds:
            return known
        trm, own = (step_flops(self.model(n), training=True) for n in (REFERENCE, name))
        return self.seconds(REFERENCE) * own / trm

    def settings(self, name: str) -> dict[str, Any]:
        """Of the model and its training."""
        sizes = {"d_model": self.args.d_model} if self.args.d_model else {}
        own = {**PRESETS[MODELS[name].preset], **MODELS[name].changed, **sizes}
        own |= {"target": 0.0, "batch_size": self.args.batch_size}
        return own | ({} if self.args.compile else {"compile": False})

    def model(self, name: str) -> ModelConfig:
        kind = config_class(MODELS[name].architecture)
        own = {k: v for k, v in self.settings(name).items() if k in _names(kind)}
        return kind(cells=self.task.cells, vocab=self.task.vocab, **own)  # type: ignore[call-arg]

    def training(self, name: str, **more: Any) -> TrainConfig:
        own = {k: v for k, v in self.settings(name).items() if k in _names(TrainConfig)}
        return TrainConfig(**own | more)

    def steps(self, name: str, stop: str) -> int:
        """Optimizer steps of a run."""
        if stop == "steps":
            return self.args.train_steps
        one, other = (step_flops(self.model(n), training=True) for n in (REFERENCE, name))
        return max(1, round(self.args.train_steps * one / other))

    def runs(self) -> list[Run]:
        """All of them; one that both rules give as many steps is trained once, by the first."""
        chosen = self.args.only or DEFAULT
        runs = [
            self._run(name, stop, seed)
            for seed in self.args.seeds
            for stop in self.args.stop
            for name in chosen
        ]
        return list(dict.fromkeys(runs))

    def _run(self, name: str, stop: str, seed: int) -> Run:
        steps = [self.steps(name, rule) for rule in STOPS]
        shared, n = steps[0] == steps[1], steps[STOPS.index(stop)]
        config = self.model(name)
        flops = n * self.args.batch_size * step_flops(config, training=True)
        rule, read_at = STOPS[0] if shared else stop, MODELS[name].read_at
        return Run(name, rule, seed, shared, read_at, config.n_weights, n, flops)

    def command(self, run: Run) -> list[str]:
        """Words of the training command."""
        model = MODELS[run.model]
        options = {"architecture": model.architecture, "preset": model.preset} | {
            name: value
            for name, value in self.settings(run.model).items()
            if name not in PRESETS[model.preset] or PRESETS[model.preset][name] != value
        }
        options |= {"steps": run.steps, "seed": run.seed, "val_limit": VALIDATED}
        options |= {"eval_every": max(1, run.steps // VALIDATIONS), "save_every": 50}
        words = ["train", "--train", str(self.args.data / "train.txt")]
        words += ["--val", str(self.args.data / "val.txt"), "--out", str(self.out / run.name)]
        for name, value in options.items():
            words += _option(name, value)
        return words

    def jobs(self) -> list[Job]:
        """A training and a test of every run."""
        return with_bases([job for run in self.runs() for job in self._jobs_of(run)])

    def _jobs_of(self, run: Run) -> tuple[Job, Job]:
        config, folder = self.model(run.model), self.out / run.name
        size = PRESETS[MODELS[run.model].preset]["batch_size"]
        rate = self.seconds(run.model) / (size * step_flops(config, training=True))  # type: ignore
        forward = step_flops(config) * rate / 60
        validated = VALIDATIONS * VALIDATED * self.training(run.model).n_sup * forward
        test = ["search", "--ckpt", str(folder), "--puzzles", str(self.args.data / "test.txt")]
        test += ["--limit", str(self.args.limit), "--steps", str(STEPS), "--k", "1", "--clean"]
        test += ["--stop", "never", "--select", "vote", "--out", str(run.solved(self.out))]
        return (
            Job(
                *(run.name, self.command(run), folder, "card.json"),
                minutes=run.flops * rate / 60 + validated,
                flags=("--resume", "--overwrite"),
            ),
            Job(
                *(f"test-{run.name}", test, run.solved(self.out).parent),
                done=run.solved(self.out).name,
                after=(run.name,),
                minutes=self.args.limit * STEPS * forward,
                is_guest=True,
            ),
        )


def _names(kind: type) -> set[str]:
    return {f.name for f in fields(kind)}  # type: ignore[arg-type]


def _option(name: str, value: object) -> list[str]:
    """An option of `trm-interp train`.

    >>> _option("n_sup", 1), _option("compile", False), _option("steps", 9)
    (['--n-sup', '1'], ['--no-compile'], ['--train-steps', '9'])
    """
    renamed = {"steps": "train-steps", "target": "stop-at"}
    flag = renamed.get(name, name.replace("_", "-"))
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", str(value)]


def measure(plan: Plan, names: Sequence[str], steps: int = 8) -> dict[str, float]:
    """Seconds of one core for an optimizer step of the preset's batch, the first two left out."""
    torch.set_num_threads(1)
    sets = [load_puzzles(plan.args.data / f"{name}.txt") for name in ("train", "val")]
    data = train_data(sets[0], sets[1])
    seconds: dict[str, float] = {}
    for name in names:
        size = PRESETS[MODELS[name].preset]["batch_size"]
        torch.compiler.reset()  # what was compiled for one model counts against the next
        with tempfile.TemporaryDirectory() as folder:
            training = plan.training(name, batch_size=size)
            trainer = Trainer(plan.model(name), training, data, Path(folder))
            for _ in range(2):  # compiles
                trainer.step()
            began = time.process_time()
            for _ in range(steps):
                trainer.step()
            seconds[name] = (time.process_time() - began) / steps
        print(f"{name}: {seconds[name]:.3f} s a step", flush=True)
    return seconds


def show_plan(plan: Plan) -> None:
    """The commands, whether they are done, and the minutes of a core that they take."""
    left = 0.0
    for job in plan.jobs():
        done = job.is_done(plan.identity)
        left += 0 if done else job.minutes
        state = "done" if done else f"{job.minutes:.1f} min of a core"
        print(f"{job.name}: {state}\n    trm-interp {' '.join(job.words)}")
    print(f"to do: {left:.0f} core minutes, {plan.args.workers} at a time")


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and tables")
    parser.add_argument("--only", nargs="+", choices=list(MODELS), help="these models")
    parser.add_argument("--stop", nargs="+", choices=STOPS, default=list(STOPS), help="which rule")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--train-steps", type=int, default=1000, help="optimizer steps of the TRM")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--limit", type=int, default=1000, help="test puzzles")
    parser.add_argument("--data", type=Path, default=DATA, help="train.txt, val.txt, test.txt")
    parser.add_argument("--d-model", type=int, help="width of all models, for a trial")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--workers", type=int, default=1, help="runs at a time, a core each")
    parser.add_argument("--plan", action="store_true", help="print what would be run")
    parser.add_argument("--table", action="store_true", help="tables of what is there, no run")
    parser.add_argument("--measure", action="store_true", help="time a step of every model")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    plan = Plan(options().parse_args(words))
    if plan.args.plan:
        show_plan(plan)
        return 0
    plan.out.mkdir(parents=True, exist_ok=True)
    if plan.args.measure:
        seconds = measure(plan, plan.args.only or DEFAULT)
        write_json(plan.out / SECONDS, plan.measured | seconds)
        return 0
    failed: dict[str, str] = {}
    if not plan.args.table:
        with progress("ablations", "s") as update:
            tell = lambda line: print(line, flush=True)  # noqa: E731
            (plan.out / "solved").mkdir(exist_ok=True)
            failed = run_jobs(plan.jobs(), plan.identity, tell, update, plan.args.workers)
    print(write_tables(plan.out, plan.runs(), MODELS))
    if failed:
        raise UserError(f"{', '.join(failed)} failed; the same command tries them again")
    return 0


if __name__ == "__main__":
    with in_one_line():
        sys.exit(main())
