"""Evaluate a trained state or a checkpoint on test puzzles; write the checkpoint that ships.

    python experiments/flagship/evaluate.py --state runs/flagship --test data/extreme/test.txt \\
        --out artifacts/trm-sudoku-extreme
    python experiments/flagship/evaluate.py --ckpt artifacts/trm-sudoku-extreme \\
        --test artifacts/data/sudoku9/test.txt --out runs/on-random
    python experiments/flagship/evaluate.py --state runs/flagship --test data/extreme/test.txt \\
        --measure-only --out runs/measured
    python experiments/flagship/evaluate.py --state runs/flagship \\
        --measured runs/measured/measured.safetensors --out artifacts/trm-sudoku-extreme

The last two do what the first does, on two machines: `--measure-only` solves the puzzles and keeps
which were solved at which step; with `--measured` nothing is solved again. The first of them needs
torch, numpy, safetensors, pandas, h5py, numba, rich, typer and jaxtyping alone.

From a state the average weights are taken; of several states (of pieces that were kept) those of
the one with the best validation. `--out` gets curve.csv (accuracy by supervision step
with 95 % Wilson intervals) and, from a state, the checkpoint with its card and train_log.jsonl, a
few hundred rows of the training log. The published curve is shown next to ours; nothing is tuned
to it.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from trm_interp.analysis.outcomes import outcome_table
from trm_interp.core.checkpoints.folder import load_checkpoint, save_checkpoint
from trm_interp.core.compiling import compile_networks
from trm_interp.core.flops import step_flops
from trm_interp.core.models.base import RecursiveModel
from trm_interp.core.training.loop import METRICS_FILE
from trm_interp.core.training.optimizers import depth
from trm_interp.core.training.portable import average_of, read_portable
from trm_interp.core.training.settings import TrainConfig
from trm_interp.runtime.errors import UserError, in_one_line
from trm_interp.runtime.files import replacing, write_json, write_text
from trm_interp.runtime.progress import progress
from trm_interp.subjects.evaluate import solve
from trm_interp.subjects.opening import open_device
from trm_interp.tasks.base import PuzzleSet
from trm_interp.tasks.registry import load_puzzles

PUBLISHED = {1: 0.156, 2: 0.539, 3: 0.656, 5: 0.751, 10: 0.834, 16: 0.872}  # of 10 000 puzzles
LOG_ROWS = 300
MEASURED = "measured.safetensors"


@dataclass(frozen=True)
class Measured:
    """Which puzzles were solved after which supervision step, and how that was found out.

    `facts`: JSON; `state` in it names the files of the state that was evaluated, with their sha256,
    `asked` the options of `trm-interp eval` that measure the same on the checkpoint.
    """

    solved: NDArray[np.bool_]  # [puzzle, step]
    q_halt: NDArray[np.float32]  # [puzzle, step]
    facts: dict[str, Any]

    def write(self, file: Path) -> None:
        tensors = {"solved": torch.from_numpy(self.solved), "q_halt": torch.from_numpy(self.q_halt)}
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as to:
            save_file(tensors, to, {"facts": json.dumps(self.facts)})

    @staticmethod
    def read(file: Path) -> "Measured":
        """What `write` wrote. UserError for anything else."""
        if not file.is_file():
            raise UserError(f"{file} is missing: bring it from where --measure-only wrote it")
        try:
            with safe_open(file, "np") as held:
                facts = json.loads((held.metadata() or {})["facts"])
                return Measured(held.get_tensor("solved"), held.get_tensor("q_halt"), facts)
        except (SafetensorError, KeyError, ValueError) as error:
            raise UserError(f"{file} is not of --measure-only, or is damaged ({error})") from None

    def table_and_summary(self) -> tuple[Any, dict[str, Any]]:
        """The outcome table, and the same as lists with how it was measured."""
        table = outcome_table(self.solved)
        facts = {k: v for k, v in self.facts.items() if k not in ("state", "asked")}
        return table, {
            **facts,
            "exact_at_step": table["exact"].tolist(),
            "exact_low": table["exact_low"].tolist(),
            "exact_high": table["exact_high"].tolist(),
            "ever_solved_by": table["ever"].tolist(),
            "lost_again_at_step": [None if np.isnan(v) else v for v in table["lost_again"]],
            "halted": float((self.q_halt > 0).any(1).mean()),
            "published_exact_at_step": PUBLISHED,
        }


def measure(
    model: RecursiveModel,
    puzzles: PuzzleSet,
    steps: int,
    batch_size: int,
    device: torch.device,
    compiled: bool,
) -> Measured:
    """Solve the puzzles; with `compiled` in whole batches, so that one graph is compiled."""
    if (model.config.cells, model.config.vocab) != (puzzles.task.cells, puzzles.task.vocab):
        raise UserError(f"{puzzles.source}: puzzles of another size than the model's")
    if compiled:
        whole = len(puzzles) - len(puzzles) % batch_size
        if 0 < whole < len(puzzles):
            print(f"{puzzles.source}: the first {whole} puzzles, in whole batches of {batch_size}")
            puzzles = puzzles.subset(np.arange(whole))
        compile_networks(model.networks(), dynamic=False, tell=print, gave_up=lambda: None)
    on_gpu = device.type == "cuda"
    dtype = torch.bfloat16 if on_gpu else torch.float32
    began = time.monotonic()
    with progress("solving", "puzzles") as update:
        read = solve(model.to(device).eval(), puzzles, steps, batch_size, dtype, update)
    seconds = time.monotonic() - began
    facts = {
        "dtype": str(dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "seconds": round(seconds, 1),
        "n": len(puzzles),
        "data_sha256": dict(puzzles.sha256),
    }
    return Measured(read.solved.numpy(), read.q_halt.numpy(), facts)


def training_flops(
    rows: list[dict[str, Any]], index: dict[str, Any], model: RecursiveModel
) -> float:
    """Of all optimizer steps, at the depth that the curriculum gave each stretch of the log."""
    ends = [(row["step"], row["fraction"]) for row in rows if "fraction" in row]
    ends.append((index["step"], ends[-1][1] if ends else 0.0))
    config = TrainConfig(**index["settings"])
    total, last = 0.0, 0
    for step, fraction in ends:
        at = depth(config, fraction, model.config.depth)
        per_step = config.batch_size * step_flops(model.config, training=True, depth=at)
        total += (step - last) * per_step
        last = step
    return total


def card_of(
    index: dict[str, Any], rows: list[dict[str, Any]], model: RecursiveModel
) -> dict[str, Any]:
    about = index["about"]
    validations = [row for row in rows if "val_exact" in row]
    return {
        "task": about["task"],
        "train": {
            **index["settings"],
            "preset": about["preset"],
            "steps_done": index["step"],
            "seconds": round(index["seconds"], 1),
            "changes_on_resume": index["changes"],
            "puzzles": about["puzzles"],
            "FLOPs": training_flops(rows, index, model),
            "pieces": about["pieces"],
        },
        **{name: about[name] for name in ("data", "sources", "sample", "init") if about.get(name)},
        "last_validation": validations[-1] if validations else None,
    }


def thinned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every validation, and evenly spaced others, about LOG_ROWS of them."""
    plain = [row for row in rows if "val_exact" not in row]
    stride = max(1, -(-len(plain) // LOG_ROWS))
    kept = {id(row) for row in plain[stride - 1 :: stride]}
    return [row for row in rows if "val_exact" in row or id(row) in kept]


def best_of(states: list[Path]) -> tuple[Path, dict[str, Any], dict[str, torch.Tensor]]:
    """The state whose last validation solved most, then the one with the lowest loss."""
    candidates = [(folder, *read_portable(folder)) for folder in states]

    def score(candidate: tuple[Path, dict[str, Any], Any]) -> tuple[float, float]:
        validations = [row for row in log_of(candidate[0]) if "val_exact" in row]
        if not validations:
            return -1.0, 0.0
        return validations[-1]["val_exact"][-1], -validations[-1]["val_loss"]

    return max(candidates, key=score)


def log_of(state: Path) -> list[dict[str, Any]]:
    """Its complete rows; a line that a kill cut short is skipped, as is a log without a row."""
    file = state / METRICS_FILE
    text = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def evaluate(args: argparse.Namespace) -> Measured:
    """What was measured, now or before; all files written."""
    index, rows = None, []
    if args.state:
        folder, index, tensors = best_of(args.state)
        model, rows = average_of(index, tensors), log_of(folder)
        if len(args.state) > 1:
            print(f"{folder} is the best on its validation puzzles")
    else:
        model = load_checkpoint(args.ckpt).model
    if args.measured:
        measured = Measured.read(args.measured)
        if index is None or measured.facts.get("state") != index["files"]:
            raise UserError(f"{args.measured} was measured on another state: name it with --state")
    else:
        device = open_device(args.device)
        puzzles = load_puzzles(args.test, args.skip_bad, limit=args.limit)
        measured = measure(model, puzzles, args.steps, args.batch_size, device, args.compile)
        measured.facts["asked"] = (
            f"--puzzles {args.test} --limit {measured.facts['n']} --steps {args.steps} "
            f"--batch-size {args.batch_size} --dtype {measured.facts['dtype']}"
            f"{' --compile always' if args.compile else ''}{' --skip-bad' if args.skip_bad else ''}"
        )
        if index is not None:
            measured.facts["state"] = index["files"]
    if args.measure_only:
        measured.write(args.out / MEASURED)
        return measured
    table, summary = measured.table_and_summary()
    write_text(args.out / "curve.csv", table.to_csv(index=False))
    if index is None:
        write_json(args.out / "test.json", summary)
        return measured
    summary["command"] = f"trm-interp eval --ckpt {args.out} {measured.facts['asked']}"
    save_checkpoint(args.out, model.cpu(), {**card_of(index, rows, model), "test": summary})
    write_text(args.out / "train_log.jsonl", "".join(json.dumps(r) + "\n" for r in thinned(rows)))
    return measured


def show(measured: Measured, with_bounds: bool) -> None:
    """Print the accuracy after every supervision step next to the published one."""
    bounds = {}
    if with_bounds:
        table = outcome_table(measured.solved)
        low_high = zip(table["exact_low"], table["exact_high"], strict=True)
        bounds = {i + 1: f" [{low:.1%}, {high:.1%}]" for i, (low, high) in enumerate(low_high)}
    for i, exact in enumerate(measured.solved.mean(0)):
        step = i + 1
        published = f"   published {PUBLISHED[step]:.1%}" if step in PUBLISHED else ""
        print(f"step {step:3d}: {exact:6.1%}{bounds.get(step, '')}{published}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--state", type=Path, nargs="+", help="folders that train.py wrote: the best is taken"
    )
    source.add_argument("--ckpt", help="any checkpoint")
    puzzles = parser.add_mutually_exclusive_group(required=True)
    puzzles.add_argument("--test", type=Path, help="test puzzles")
    puzzles.add_argument("--measured", type=Path, help="results of --measure-only for this state")
    parser.add_argument(
        "--measure-only", action="store_true", help=f"write {MEASURED} alone, for --measured"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--skip-bad", action="store_true", help="leave out invalid puzzles")
    parser.add_argument("--steps", type=int, default=16, help="supervision steps")
    parser.add_argument("--limit", type=int, help="only the first so many puzzles")
    parser.add_argument("--batch-size", type=int, default=512, help="puzzles at once")
    parser.add_argument("--device", default="auto", help="auto takes a GPU where there is one")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network")
    args = parser.parse_args(arguments)
    with in_one_line():
        measured = evaluate(args)
    show(measured, with_bounds=not args.measure_only)
    print(f"wrote {args.out} (n = {measured.facts['n']})")


if __name__ == "__main__":
    main()
