"""How the explorer computes: without a gradient, and with no more threads than it needs.

The threads of one operation wait for each other. A run of one puzzle is too small for that to gain
anything, and where other programs use the same cores it would take a hundred times as long.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor

from trm_interp.core.flops import evaluation_flops
from trm_interp.core.models.base import RecursiveModel
from trm_interp.core.models.layers import weights_held

FLOPS = 2e8  # of an evaluation, from which on a further thread gains anything


class _Threads:
    """Torch's number of threads, while somebody is inside of `few_threads`."""

    lock, inside, own = Lock(), 0, 0


@contextmanager
def few_threads(most: int) -> Iterator[None]:
    """At most so many threads for every operation inside the block; perhaps more where several
    callers are inside at once. After the last of them the number is what it was."""
    with _Threads.lock:
        if not _Threads.inside:
            _Threads.own = torch.get_num_threads()
        _Threads.inside += 1
    torch.set_num_threads(max(1, min(_Threads.own, most)))
    try:
        yield
    finally:
        with _Threads.lock:
            _Threads.inside -= 1
            torch.set_num_threads(_Threads.own)


@contextmanager
def evaluating(model: RecursiveModel, x: Tensor) -> Iterator[None]:
    """For evaluations of `x` [puzzle, pos, d_model] inside the block, by one caller at a time; with
    at most half of the threads, so that the page answers meanwhile."""
    threads = int(len(x) * evaluation_flops(model.config) / FLOPS)
    most = min(threads, torch.get_num_threads() // 2)
    with few_threads(most), torch.no_grad(), weights_held(model, x.dtype):
        yield
