"""The ranks of a model in processes of their own, which torch.distributed connects."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed

c10d: Any = distributed
"""Its process groups are not in its type stubs."""
JOIN_TIMEOUT = timedelta(seconds=60)
"""Time for all ranks to meet, once their processes run."""
STEP_TIMEOUT = timedelta(minutes=10)
"""Time that ranks wait for each other. The step watchdog ends an engine that hangs long before."""
LOOPBACK = "127.0.0.1"


class ProcessGroup:
    """Ranks (see `Ranks`) that exchange tensors by gloo on CPUs, by NCCL on CUDA devices.

    They find each other by a file, which must be in a private directory. gloo listens on random ports of the
    loopback interface.
    """

    def __init__(self, file: Path, rank: int, size: int, device: torch.device) -> None:
        """Find the other ranks. Raise `RuntimeError` if one does not come in time."""
        self.rank, self.size = rank, size
        self._device = device
        store = c10d.FileStore(str(file), size)
        store.set_timeout(JOIN_TIMEOUT)
        self._group = _connect(store, rank, size, device)

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of all ranks' tensors, in ``x`` if it is contiguous."""
        if x.is_meta:
            return x
        x = x.contiguous()
        self._group.allreduce([x]).wait()
        return x

    def concatenate(self, x: Tensor, widths: Sequence[int]) -> Tensor:
        """Return the tensors of all ranks, joined along the last dimension, where they have these sizes."""
        if x.is_meta:
            return x.new_empty(*x.shape[:-1], sum(widths))
        padded = F.pad(x, (0, max(widths) - x.shape[-1])).contiguous()
        parts = [torch.empty_like(padded) for _ in widths]
        self._group.allgather([parts], [padded]).wait()
        return torch.cat([each[..., :size] for each, size in zip(parts, widths, strict=True)], -1)

    def broadcast(self, x: Tensor) -> Tensor:
        """Return the tensor of rank 0, in ``x`` if it is contiguous."""
        x = x.contiguous()
        self._group.broadcast(x, 0).wait()
        return x

    def minimum(self, number: int) -> int:
        """Return the smallest of the ranks' numbers."""
        numbers = self.concatenate(torch.tensor([number], device=self._device), [1] * self.size)
        return int(numbers.min())


def _connect(store: Any, rank: int, size: int, device: torch.device) -> Any:
    """Return a process group of torch's own, without its global state."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
        nccl = c10d.ProcessGroupNCCL.Options()
        nccl._timeout = STEP_TIMEOUT
        return c10d.ProcessGroupNCCL(store, rank, size, nccl)
    options = c10d.ProcessGroupGloo._Options()
    options._timeout = STEP_TIMEOUT
    options._devices = [c10d.ProcessGroupGloo.create_device(hostname=LOOPBACK)]
    return c10d.ProcessGroupGloo(store, rank, size, options)
