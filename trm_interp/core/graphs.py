"""A whole optimizer step as one CUDA graph, so that the host launches one thing instead of 1 000.

What a step reads and writes must then stay where it is: the trainer keeps its slots in place, the
step count and the learning rates are tensors, and only the depth of the recursion, which the
curriculum changes twice, needs a new graph.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

Metrics = dict[str, Tensor]
WARM_STEPS = 3  # run as they are first: kernels are compiled, memory is laid out


class Captured(Protocol):
    def replay(self) -> None: ...


def capture_cuda(run: Callable[[], Any]) -> Captured:
    """The kernels that `run` launches; nothing is computed yet."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


class GraphedStep:
    """Calls `run(cycles)` a few times, then replays it as a graph; again for other cycles.

    `run` reads and writes tensors that stay in place. Where the capture fails, `tell` says so and
    every step runs as it is.
    """

    def __init__(
        self,
        run: Callable[[tuple[int, int]], Metrics],
        tell: Callable[[str], None],
        capture: Callable[[Callable[[], Any]], Captured] = capture_cuda,
    ) -> None:
        self.run, self.tell, self.capture = run, tell, capture
        self.cycles: tuple[int, int] | None = None
        self.graph: Captured | None = None
        self.metrics: Metrics = {}
        self.warm_left, self.works = 0, True

    def __call__(self, cycles: tuple[int, int]) -> Metrics:
        if cycles != self.cycles:
            self.cycles, self.graph, self.warm_left = cycles, None, WARM_STEPS
        if not self.works or self.warm_left:
            self.warm_left = max(0, self.warm_left - 1)
            return self._aside(cycles)
        if self.graph is None:
            try:
                self.graph = self.capture(lambda: self._keep(self.run(cycles)))
            except RuntimeError as error:
                self.works = False
                self.tell(f"no CUDA graph of a step ({error}); going on without")
                return self._aside(cycles)
        self.graph.replay()
        return self.metrics

    def _keep(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def _aside(self, cycles: tuple[int, int]) -> Metrics:
        """On a stream of its own, as what is captured later must be."""
        if not torch.cuda.is_available():
            return self.run(cycles)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            metrics = self.run(cycles)
        torch.cuda.current_stream().wait_stream(stream)
        return metrics
