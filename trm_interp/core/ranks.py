"""One process or several: rank, size, and the exchanges between them."""

import inspect
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trm_interp.core.processes import ADVICE, rank_and_size
from trm_interp.runtime.errors import UserError, first_line

# buffers are the same in all processes; torch 2.12 and earlier have the option's older name
_NOT_SENT: dict[str, Any] = next(
    {name: False}
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel).parameters
)


def with_mean_gradients(module: nn.Module) -> DistributedDataParallel:
    """The module, whose backward pass gives means over the processes. Its buffers must be the same
    in all of them, and stay so: they are not sent."""
    return DistributedDataParallel(module, **_NOT_SENT)


class Ranks:
    """Which process this is. One process is rank 0 of 1. `timeout`: how long one waits for the
    others, by default as torch has it."""

    def __init__(self, device: torch.device, timeout: timedelta | None = None) -> None:
        self.device = device
        self.rank, self.size = rank_and_size()
        if self.size == 1 or dist.is_initialized():
            return
        if device.type not in ("cpu", "cuda"):
            raise UserError(
                f"{device.type} computes in one process: use --device cpu with torchrun"
            )
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timeout)
        except (dist.DistError, ValueError) as error:  # nobody answers at MASTER_ADDR
            raise UserError(
                f"process {self.rank} of {self.size} does not reach the others "
                f"({first_line(error)[:120]}): {ADVICE}"
            ) from error

    def close(self) -> None:
        """Leave the other processes; nothing can be asked of them afterwards."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def total(self, values: Tensor) -> Tensor:
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def most(self, *values: float) -> list[float]:
        """The largest of each value over all processes; one process does not ask the device."""
        if self.size == 1:
            return list(values)
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return shared.tolist()

    def all_say(self, mine: bool) -> bool:
        """Whether every process says yes."""
        return self.most(-float(mine))[0] < 0

    def all_see(self, file: Path) -> bool:
        """Whether a file is there. UserError where only some of the processes see it."""
        seen = self.objects(file.exists())
        if len(set(seen)) > 1:
            raise UserError(
                f"process {seen.index(False)} of {self.size} does not see {file.name}, which "
                f"process {seen.index(True)} has: --out must be one folder that all of them see"
            )
        return seen[0]

    def objects(self, mine: Any) -> list[Any]:
        """What every process gives, in order of their rank; waits for all of them."""
        if self.size == 1:
            return [mine]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, mine)
        return gathered

    def gather(self, local: Tensor) -> Tensor:
        """The slots of all processes, in order of their index."""
        if self.size == 1:
            return local
        parts = [torch.empty_like(local) for _ in range(self.size)]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)
