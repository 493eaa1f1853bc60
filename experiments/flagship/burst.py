"""Train, evaluate and pack within a fixed number of seconds, on any machine with one GPU.

    python -u experiments/flagship/smoke.py --train data/extreme/train.csv \\
        --val data/extreme/val.csv --preset flagship-muon
    python -u experiments/flagship/burst.py --seconds 590 --train data/extreme/train.csv \\
        --val data/extreme/val.csv --test data/extreme/test.csv --out out
    # on the machine that keeps the result
    python experiments/flagship/packing.py unpack out/state runs/burst
    python experiments/flagship/evaluate.py --state runs/burst \\
        --measured runs/burst/measured.safetensors --out artifacts/trm-sudoku-extreme

Needs torch, numpy, pandas, h5py, safetensors, numba, typer, rich and jaxtyping, no network, and
this source tree on PYTHONPATH. Arguments after `--` go to `train.py`, such as `-- --set
muon_lr=0.01 --init CHECKPOINT` for a burst that starts from the weights of an earlier one, or
`--from FOLDER` goes on with its packed state. `--device cpu` rehearses on a machine without a GPU.

`--out` gets `state`, a packed state of at most 6 files of 15 MiB, in which `logs.tar.gz` holds the
logs and which test puzzles were solved. The schedule is laid over the time that there is (`train.py
--total fit`). Training runs in a process of its own and saves every 2 000 steps: where it crashes,
it goes on from the last save, the second time without the compiler; where memory does not suffice,
in micro-batches; where time runs out, what was saved is evaluated and packed.
"""

import argparse
import json
import os
import runpy
import shutil
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from trm_interp.runtime.children import Children
from trm_interp.runtime.errors import UserError, in_one_line

HERE = Path(__file__).parent
PACKING_S, STOPPING_S = 10.0, 5.0  # kept for packing; between a budget's end and a SIGTERM
LEAST_TRAINING_S, LEAST_EVALUATION_S = 20.0, 5.0
USER_ERROR = 2  # exit status of a script that says what is wrong: trying again does not help


@dataclass
class Burst:
    """The options of a burst, its clock and its logs."""

    args: argparse.Namespace
    began: float = field(default_factory=time.monotonic)
    logs: list[Path] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.args.out / "state"

    @property
    def is_saved(self) -> bool:
        return (self.state / "state.json").is_file()

    def left(self) -> float:
        """Seconds until everything has to be over."""
        return self.began + self.args.seconds - time.monotonic()

    def for_training(self) -> float:
        return self.left() - self.args.evaluate_s - PACKING_S - STOPPING_S

    def script(self, name: str, words: list[str], seconds: float) -> int:
        """Run a script, ended after so many seconds; its exit status. Its output is kept."""
        log = self.args.out / f"{len(self.logs) + 1}-{name}.log"
        self.logs.append(log)
        command = [sys.executable, "-u", str(HERE / f"{name}.py"), *words]
        with Children() as children, _shown(log):
            timer = threading.Timer(seconds, children.stop)
            timer.start()
            try:
                return children.run(command, log, os.environ)
            finally:
                timer.cancel()

    def tell(self, line: str) -> None:
        print(f"[{time.monotonic() - self.began:6.1f} s] {line}", flush=True)


class _shown:
    """Prints what is added to a log while the block runs."""

    def __init__(self, log: Path) -> None:
        self.log, self.is_over = log, threading.Event()
        self.thread = threading.Thread(target=self._follow)

    def _follow(self) -> None:
        at = 0
        while True:
            last = self.is_over.wait(0.5)
            if self.log.exists():
                with self.log.open(errors="replace") as file:
                    file.seek(at)
                    print(file.read(), end="", flush=True)
                    at = file.tell()
            if last:
                return

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *error: object) -> None:
        self.is_over.set()
        self.thread.join()


def train(burst: Burst) -> None:
    """Train until the time is used; after a crash from the last save, at most three times."""
    args = burst.args
    compiles = True
    for attempt in range(3):
        seconds = burst.for_training()
        if seconds < LEAST_TRAINING_S:
            break
        words = ["--train", args.train, "--val", args.val, "--state", burst.state]
        words += ["--preset", args.preset, "--device", args.device, "--auto-batch"]
        words += ["--budget", seconds / 60, "--reserve", 0, "--total", "fit"]
        words += ["--set", f"batch_size={args.batch_size}", "--val-limit", args.val_limit]
        words += args.more
        if burst.is_saved:
            words.append("--resume")
        elif burst.state.exists():
            shutil.rmtree(burst.state)  # a save that was cut short
        if not compiles:
            words += ["--set", "compile=false"]
        status = burst.script("train", [str(word) for word in words], seconds + STOPPING_S)
        if status in (0, USER_ERROR):
            break
        # without a save nothing shows that compiled code works here, and a second crash may be its
        compiles = burst.is_saved and attempt == 0
        burst.tell(f"training ended with status {status}")


def evaluate(burst: Burst) -> None:
    """Solve test puzzles with what was saved, in the time that is left."""
    args, seconds = burst.args, burst.left() - PACKING_S
    if seconds < LEAST_EVALUATION_S:
        burst.tell("no time is left for the evaluation: the state is packed without results")
        return
    parts = json.loads((burst.state / "state.json").read_text())["micro_batches"]
    words = ["--state", burst.state, "--test", args.test, "--out", burst.state, "--measure-only"]
    words += ["--device", args.device, "--batch-size", max(1, args.batch_size // parts)]
    words += ["--limit", args.test_limit, "--steps", args.steps]
    compiled = [] if args.device == "cpu" else ["--compile"]
    status = burst.script("evaluate", [str(word) for word in [*words, *compiled]], seconds)
    if status:
        burst.tell(f"evaluation ended with status {status}: the state is packed without results")


def run(args: argparse.Namespace) -> None:
    """The whole burst. UserError where it cannot begin, or nothing was saved."""
    needed = args.start_s + LEAST_TRAINING_S + args.evaluate_s + PACKING_S + STOPPING_S
    if args.seconds < needed:
        raise UserError(
            f"--seconds {args.seconds:g}: a burst needs at least {needed:g} ({args.start_s:g} to "
            f"start and compile, {LEAST_TRAINING_S:g} to train, {args.evaluate_s:g} to evaluate, "
            f"{PACKING_S + STOPPING_S:g} to stop and pack): nothing was done"
        )
    require_device(args.device)
    for file in (args.train, args.val, args.test):
        if not file.exists():
            raise UserError(f"{file} does not exist: name a file of puzzles")
    if args.out.exists() and any(args.out.iterdir()):
        raise UserError(f"{args.out} is not empty: name a new folder")
    burst = Burst(args)
    args.out.mkdir(parents=True, exist_ok=True)
    packing = runpy.run_path(str(HERE / "packing.py"))
    if args.source:
        packing["unpack"](args.source, burst.state)
    train(burst)
    if not burst.is_saved:
        raise UserError(f"no state was saved: {burst.logs[-1]} says why")
    burst.tell(f"{burst.left():.0f} s left to evaluate and pack")
    evaluate(burst)
    for path in packing["pack"](burst.state, burst.logs):
        print(f"{path.stat().st_size / 1e6:6.1f} MB  {path}")
    for log in burst.logs:
        log.unlink()
    burst.tell(f"packed in {burst.state}")


def require_device(name: str) -> None:
    """UserError where there is no GPU and none was given up on purpose."""
    import torch  # slow to import

    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("this PyTorch sees no CUDA device: --device cpu rehearses without one")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, required=True, help="after which all is over")
    parser.add_argument("--train", type=Path, required=True, help="training puzzles")
    parser.add_argument("--val", type=Path, required=True, help="validation puzzles")
    parser.add_argument("--test", type=Path, required=True, help="test puzzles")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    parser.add_argument("--from", dest="source", type=Path, help="packed state to go on with")
    parser.add_argument("--preset", default="flagship-muon", help="preset of train.py")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="never another")
    parser.add_argument("--batch-size", type=int, default=384, help="puzzles in flight")
    parser.add_argument("--val-limit", type=int, default=384, help="validation puzzles")
    parser.add_argument("--test-limit", type=int, default=9984, help="test puzzles, 26 batches")
    parser.add_argument("--steps", type=int, default=16, help="supervision steps of the evaluation")
    parser.add_argument("--start-s", type=float, default=60, help="seconds to start and compile")
    parser.add_argument("--evaluate-s", type=float, default=60, help="seconds for the evaluation")
    parser.add_argument("more", nargs="*", help="after --: more arguments of train.py")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    with in_one_line():
        run(args)


if __name__ == "__main__":
    main()
