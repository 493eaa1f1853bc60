"""A whole optimizer step as one CUDA graph, so that the host launches one thing instead of 1 000.

What a step reads and writes must then stay where it is: the trainer keeps its slots in place, the
step count and the learning rates are tensors, and only what a `Phase` holds, which schedules change
a few times in a run, needs a new graph. A graph is used when one replay of it has done what the
step itself does.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

Metrics = dict[str, Tensor]
WARM_STEPS = 3  # run as they are first: kernels are compiled, memory is laid out
TOLERANCE = 0.02  # of a metric between replay and step: kernels may add in another order


class Phase(NamedTuple):
    """What a step does differently in different parts of a run."""

    cycles: tuple[int, int]  # (H_cycles, L_cycles) of a supervision step
    n_sup: int  # supervision steps after which a slot is refilled


class Captured(Protocol):
    def replay(self) -> None: ...


def capture_cuda(run: Callable[[], Any]) -> Captured:
    """The kernels that `run` launches; nothing is computed yet."""
    graph = torch.cuda.CUDAGraph()
    # a capture that fails leaves its stream the current one; this block puts ours back
    with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph):
        run()
    return graph


class GraphedStep:
    """Calls `run(phase)` a few times, then replays it as a graph; again for another phase.

    `run` changes the tensors that `places()` gives, all of them in place. Where the capture fails
    or its replay does something else, `tell` says so and every step runs as it is.
    """

    def __init__(
        self,
        run: Callable[[Phase], Metrics],
        places: Callable[[], list[Tensor]],
        tell: Callable[[str], None],
        capture: Callable[[Callable[[], Any]], Captured] = capture_cuda,
    ) -> None:
        self.run, self.places, self.tell, self.capture = run, places, tell, capture
        self.phase: Phase | None = None
        self.graph: Captured | None = None
        self.metrics: Metrics = {}
        self.warm_left, self.works = 0, True
        self.stream = torch.cuda.Stream() if torch.cuda.is_available() else None

    def __call__(self, phase: Phase) -> Metrics:
        if not self.works:
            return self.run(phase)
        if phase != self.phase:
            self.phase, self.graph, self.warm_left = phase, None, WARM_STEPS
        if self.warm_left:
            self.warm_left -= 1
            return self._on_own_stream(phase)
        if self.graph is not None:
            self.graph.replay()
            return self.metrics
        return self._first(phase)

    def _first(self, phase: Phase) -> Metrics:
        """One step as it is, then the same one as a graph: kept if both come to the same."""
        before = [place.clone() for place in self.places()]
        plain = {name: value.clone() for name, value in self._on_own_stream(phase).items()}
        after = [place.clone() for place in self.places()]
        self._write(before)
        try:
            self.graph = self.capture(lambda: self._keep(self.run(phase)))
            self.graph.replay()
        except Exception as error:  # of CUDA, of the compiler, out of memory: the run goes on
            return self._give_up(f"cannot be captured ({error})", after, plain)
        for name, value in plain.items():
            if not torch.allclose(self.metrics[name], value, rtol=TOLERANCE, atol=1e-3):
                why = f"gives {name} {float(self.metrics[name]):.6g} for {float(value):.6g}"
                return self._give_up(why, after, plain)
        return self.metrics

    def _give_up(self, why: str, after: list[Tensor], metrics: Metrics) -> Metrics:
        self.works, self.graph = False, None
        self._write(after)
        self.tell(f"a CUDA graph of a step {why}; going on without")
        return metrics

    @torch.no_grad()
    def _write(self, values: list[Tensor]) -> None:
        for place, value in zip(self.places(), values, strict=True):
            place.copy_(value)

    def _keep(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def _on_own_stream(self, phase: Phase) -> Metrics:
        """Run a step on a side stream, as a later capture requires."""
        if self.stream is None:
            return self.run(phase)
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            metrics = self.run(phase)
        torch.cuda.current_stream().wait_stream(self.stream)
        return metrics
