"""What a command would compute, write and take: counted from its options, timed on one batch.

Nothing of the command is run. Counted is what grows with puzzles, starts and steps: runs of the
network, or rows of an SAE. What comes once, such as a figure or a fit, is named and not counted.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from trm_interp.recording.schema import size_text
from trm_interp.report.sweep.estimates import duration
from trm_interp.report.sweep.table import Line
from trm_interp.report.workloads import ROWS, STEPS, Work, work_of
from trm_interp.runtime.limits import counted
from trm_interp.runtime.progress import waiting

REPEATS = 3
MOST_TIMED = {STEPS: 512, ROWS: 8192}  # of the batch that is timed
ONE = {STEPS: "puzzle", ROWS: "row"}


@dataclass(frozen=True)
class Cost:
    """What a command line comes to; times are seconds.

    `rate`: FLOP/s, of `timed` puzzles or rows at once on `device`, or given. `batch_seconds`: of
    one supervision step or optimizer step of these, None where the rate was given.
    """

    command: str
    device: str
    work: Work
    rate: float
    timed: int
    batch_seconds: float | None

    @property
    def flops(self) -> float:
        return float(self.work.amount) * self.work.flops

    @property
    def evaluations(self) -> int:
        return self.work.amount * self.work.evaluations

    @property
    def seconds(self) -> float:
        return self.flops / self.rate

    def to_json(self) -> dict[str, Any]:
        """What `trm-interp cost --json` prints."""
        work, steps = self.work, self.work.unit == STEPS
        return {
            "command": self.command,
            "device": self.device,
            "supervision_steps": work.amount if steps else None,
            "rows": None if steps else work.amount,
            "evaluations": self.evaluations,
            "flops": self.flops,
            "bytes": work.size,
            "seconds": self.seconds,
            "flops_per_s": self.rate,
            "timed_puzzles" if steps else "timed_rows": self.timed,
            "timed_seconds": self.batch_seconds,
            "not_counted": work.limits,
        }


def cost(line: Line, tflops: float | None = None, tell: Callable[[str], None] = print) -> Cost:
    """What a command line would take. UserError for a command whose work is not counted here.

    `tflops`: 1e12 FLOP/s of the machine that it is for, where that is not this one.
    """
    work = work_of(line, tell)
    timed = min(work.at_once, MOST_TIMED[work.unit])
    if tflops is not None:
        return Cost(line.command, "the one that was named", work, tflops * 1e12, timed, None)
    with waiting("timing a batch"):
        seconds = _timed(work, timed)
    return Cost(line.command, work.device.type, work, work.flops * timed / seconds, timed, seconds)


def _timed(work: Work, n: int) -> float:
    """Seconds of one batch, the fastest of a few, as it comes."""
    step, seconds = work.begin(), []
    for _ in range(1 + REPEATS):
        began = time.perf_counter()
        step(n)
        if work.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def lines(found: Cost) -> list[str]:
    """What `trm-interp cost` prints."""
    work = found.work
    on_disk = "not known beforehand" if work.size is None else size_text(work.size)
    measured = (
        f"at the {found.rate / 1e12:.3g} TFLOP/s that were given"
        if found.batch_seconds is None
        else f"at the speed of {counted(found.timed, ONE[work.unit])} at once on this machine's "
        f"{found.device}, {found.rate / 1e12:.3g} TFLOP/s"
    )
    evaluations = f", {found.evaluations} network evaluations" if work.evaluations else ""
    return [
        f"{found.command}: {work.amount} {work.unit}{evaluations}",
        f"arithmetic: {found.flops:.3g} FLOP{' with gradients' if work.gradients else ''}",
        f"on disk: {on_disk}",
        f"time: about {duration(found.seconds)} {measured}",
        *([f"not counted: {work.limits}"] if work.limits else []),
    ]
