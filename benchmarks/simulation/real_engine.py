"""A real engine of this machine, whose steps are measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

import torch
from msgspec import Struct

from fllm import BackendConfig
from fllm.batching import BatchLimits, ModelRunner, Row, Sampled
from fllm.model.devices import parse_devices
from fllm_backends.torch.backend import LIMITS
from fllm_backends.torch.hardware import default_device
from fllm_backends.torch.options import read_torch_config
from fllm_backends.torch.runner import TorchRunner


class RealEngine(Struct, frozen=True):
    """A loaded model with its KV cache."""

    runner: ModelRunner
    limits: BatchLimits
    kv_blocks: int
    max_model_len: int
    clock: Callable[[], float]

    def execute(self, rows: Sequence[Row]) -> tuple[Sequence[Sampled], float]:
        """Execute a step. Return its results and seconds."""
        started = self.clock()
        return self.runner.execute(rows), self.clock() - started


@contextmanager
def real_engine(model: str, engines: int, device: str, *, cpu_time: bool) -> Iterator[RealEngine]:
    """Load a model into an engine that has the part of one of ``engines`` of the cores.

    With ``cpu_time``, its clock is the CPU time of a thread that computes: other processes do not disturb it.
    """
    chosen = parse_devices(device)[0] if device else default_device()
    config = BackendConfig(model=model, local_engines=engines, devices=(chosen,), seed=0)
    limits = LIMITS[chosen.kind].with_config(config)
    runner = TorchRunner(read_torch_config(config), chosen, limits.max_num_seqs)
    with closing(runner):
        card = runner.load(lambda _: None)
        blocks = runner.allocate(limits.block_size)
        threads = torch.get_num_threads()
        clock = (lambda: time.process_time() / threads) if cpu_time else time.perf_counter
        yield RealEngine(runner, limits, blocks, min(card.max_model_len, blocks * limits.block_size), clock)
