"""Does every part of a training run work on this machine, how fast, and does it fit? A minute.

    python -u experiments/flagship/smoke.py --train data/extreme/train.csv \\
        --val data/extreme/val.csv --preset flagship-muon

Takes the arguments of `train.py`, of which it adds `--device cuda`, `--budget 10`, `--auto-batch`
and a state in a temporary folder where they are not given. Builds the very trainer that `train.py`
would, compiles it (the compiler's caches serve the next run on the same machine), times optimizer
steps, a validation and a save, checks the sizes of the packed state, and prints every number as
soon as it is known and all of them as one line of JSON last. On a machine with one GPU run this
before `burst.py`. Without a GPU it ends in one line, unless `--device cpu` is given.
"""

import json
import runpy
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trm_interp.core.flops import step_flops
from trm_interp.core.models.layers import aligned_rows
from trm_interp.core.training.portable import save_portable
from trm_interp.core.training.trainer import Trainer
from trm_interp.runtime.errors import UserError, in_one_line

HERE = Path(__file__).parent
WARM, TIMED = 3, 20  # optimizer steps
BURST_S = 480.0  # of training, for which the number of steps is estimated


class Notes:
    """Numbers by name, each printed when it is noted."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.numbers: dict[str, Any] = {}

    def __call__(self, name: str, value: Any) -> None:
        self.numbers[name] = value
        print(f"[{time.monotonic() - self.began:6.1f} s] {name}: {value}", flush=True)


def seconds(run: Callable[[], object], times: int = 1) -> float:
    """Seconds of one run, when the device has finished it."""

    def wait() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    wait()
    began = time.perf_counter()
    for _ in range(times):
        run()
    wait()
    return (time.perf_counter() - began) / times


def rates(note: Notes, trainer: Trainer) -> None:
    """What the GPU reaches on the products of the network, and the rate of its memory."""
    batch, shape = trainer.config.batch_size, trainer.model.config
    kind: dict[str, Any] = {"device": trainer.device, "dtype": torch.bfloat16}
    x = torch.randn(batch, shape.positions, shape.d_model, **kind)
    mixing = torch.randn(shape.d_model, shape.positions, **kind)
    for name, weight in (("plain", mixing), ("aligned", aligned_rows(mixing))):
        each = weight.expand(batch, -1, -1)
        took = _median(lambda each=each: torch.bmm(each, x))
        note(f"token mixing, rows {name}, ms", round(1e3 * took, 3))
    rows = x.flatten(0, 1)
    wide = torch.randn(shape.d_model, 6 * shape.d_model, **kind)
    flops = 2 * rows.shape[0] * wide.numel()
    note("channel product TFLOP/s", round(flops / _median(lambda: rows @ wide) / 1e12))
    big = torch.empty(2**30, device=trainer.device, dtype=torch.uint8)
    other = torch.empty_like(big)
    note("copy TB/s", round(2 * 2**30 / _median(lambda: other.copy_(big)) / 1e12, 2))


def _median(run: Callable[[], object]) -> float:
    for _ in range(WARM):
        run()
    return sorted(seconds(run) for _ in range(TIMED))[TIMED // 2]


def measure_training(note: Notes, trainer: Trainer) -> None:
    """Compile, then time optimizer steps and validations."""
    batch = trainer.config.batch_size
    rows: list[Any] = []
    note("first step, s", round(seconds(lambda: rows.append(trainer.step())), 1))
    note("compiled", trainer.mender is not None and not trainer.mender.has_left)
    note("first loss per cell", round(float(rows[0]["answer"]) / batch, 4))
    seconds(trainer.step, WARM + 1)  # a CUDA graph is captured here
    rate = 1 / seconds(trainer.step, TIMED)
    trainer.check()
    flops = batch * step_flops(trainer.model.config, training=True, depth=trainer.phase.cycles)
    note("micro-batches", trainer.micro_batches)
    note("steps per s", round(rate, 2))
    note("TFLOP/s", round(rate * flops / 1e12, 3))
    note(f"steps in {BURST_S:.0f} s at this depth", int(BURST_S * rate))
    if trainer.device.type == "cuda":
        note("peak GiB", round(torch.cuda.max_memory_allocated() / 2**30, 1))
    note("first validation, s", round(seconds(trainer.validate), 1))
    note("validation, s", round(seconds(trainer.validate), 1))
    note("validation loss", round(trainer.best["loss"], 4))


def measure_state(note: Notes, trainer: Trainer, about: dict[str, Any], folder: Path) -> None:
    """Save and pack; UserError where the packed state would not be few small files."""
    note("save, s", round(seconds(lambda: save_portable(trainer, folder, about)), 1))
    packing = runpy.run_path(str(HERE / "packing.py"))
    sizes = [path.stat().st_size for path in packing["pack"](folder)]
    note("files of the packed state, MB", [round(size / 1e6, 1) for size in sizes])


def with_defaults(words: list[str], folder: Path) -> list[str]:
    """The arguments of train.py, completed."""
    defaults = {"--device": "cuda", "--budget": "10", "--state": str(folder / "state")}
    given = {word.split("=")[0] for word in words}
    added = [w for name, value in defaults.items() if name not in given for w in (name, value)]
    return [*words, *added, *([] if "--auto-batch" in given else ["--auto-batch"])]


def smoke(words: list[str]) -> dict[str, Any]:
    """All numbers; UserError where something does not work."""
    note = Notes()
    train = runpy.run_path(str(HERE / "train.py"))
    with tempfile.TemporaryDirectory() as folder:
        args = train["parse"](with_defaults(words, Path(folder)))
        if args.device == "auto":
            raise UserError("--device auto may be the CPU: name cuda or cpu")
        trainer, about = train["open_trainer"](args)
        cuda = trainer.device.type == "cuda"
        note("torch", torch.__version__)
        note("device", torch.cuda.get_device_name() if cuda else trainer.device.type)
        note("puzzles", about["puzzles"])
        note("weights", sum(p.numel() for p in trainer.model.parameters()))
        if cuda:
            rates(note, trainer)
        measure_training(note, trainer)
        measure_state(note, trainer, about, args.state)
    note("all, s", round(time.monotonic() - note.began, 1))
    return note.numbers


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    with in_one_line():
        numbers = smoke(sys.argv[1:])
    print(json.dumps(numbers))


if __name__ == "__main__":
    main()
