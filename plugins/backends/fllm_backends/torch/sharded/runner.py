"""A `ModelRunner` of a model that is divided among several processes. This process is rank 0."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from fllm.batching.runner import Row, Sampled
from fllm.config import Device
from fllm.errors import BackendLost
from fllm.logs import configured_format
from fllm.values import ModelCard, Progress
from fllm_backends.checkpoints.download import fetch_model
from fllm_backends.torch.hardware import torch_device
from fllm_backends.torch.model_selection import check_model
from fllm_backends.torch.options import TorchConfig
from fllm_backends.torch.runner import TorchRunner
from fllm_backends.torch.sharded.followers import Followers
from fllm_backends.torch.sharded.messages import Allocate, Start

log = logging.getLogger("fllm.model")


class ShardedRunner:
    """Runs one decoder on several devices, or in several processes on a CPU.

    Each rank is a `TorchRunner` of a part of the weights. Rank 0 has all that is not a decoder: it samples.
    """

    capabilities = TorchRunner.capabilities

    def __init__(self, config: TorchConfig, devices: Sequence[Device], max_num_seqs: int) -> None:
        self._config = config
        self._devices = devices
        self._max_num_seqs = max_num_seqs
        self._followers: Followers | None = None
        self._runner: TorchRunner | None = None

    def load(self, progress: Callable[[Progress], None]) -> ModelCard:
        """Start the other ranks, and load the parts of the weights. Raise `UserError`."""
        for device in self._devices:
            torch_device(device)
        self._followers = followers = Followers(len(self._devices))
        try:
            return self._load(followers, progress)
        except Exception:
            if failure := followers.failure() if followers.lost else None:
                raise failure from None
            raise

    def _load(self, followers: Followers, progress: Callable[[Progress], None]) -> ModelCard:
        from fllm_backends.torch.sharded.leading_decoder import LeadingDecoder
        from fllm_backends.torch.sharded.process_group import ProcessGroup

        size = len(self._devices)
        # The other ranks then find the files of the Hub here.
        fetch_model(
            self._config.source,
            revision=self._config.revision,
            weights=not self._config.dummy,
            progress=progress,
            check=partial(check_model, config=self._config),
        )
        with tempfile.TemporaryDirectory(prefix="furiosa-llm-ranks-") as directory:
            file = Path(directory, "store")
            followers.send_each([self._start(rank, str(file)) for rank in range(1, size)])
            ranks = ProcessGroup(file, 0, size, torch_device(self._devices[0]))
            self._runner = TorchRunner(self._config, self._devices[0], self._max_num_seqs, ranks)
            card = self._runner.load(progress)
            followers.wait_until_loaded()
            self._runner.wrap_decoder(
                lambda decoder: LeadingDecoder(decoder, ranks, followers.send, followers.error)
            )
        if card.images is not None:
            log.warning("--tensor-parallel-size %d: the model serves text only; it would read images", size)
        runtime = card.runtime | {"tensor_parallel_size": size}
        return replace(card, images=None, runtime=runtime)

    def _start(self, rank: int, file: str) -> Start:
        return Start(
            config=self._config,
            device=self._devices[rank],
            rank=rank,
            size=len(self._devices),
            file=file,
            max_num_seqs=self._max_num_seqs,
            log_level=logging.getLogger().getEffectiveLevel(),
            log_format=configured_format(),
        )

    def allocate(self, block_size: int) -> int:
        """Allocate as many blocks on each rank as fit on all; return their number."""
        runner, followers = self._loaded()
        followers.send(Allocate(block_size))
        return runner.allocate(block_size)

    def execute(self, batch: Sequence[Row]) -> Sequence[Sampled]:
        """Run one batch on all ranks. Raise `BackendLost` if that fails: they are out of step then."""
        runner, _ = self._loaded()
        self.check()
        return runner.execute(batch)

    def check(self) -> None:
        """Raise `BackendLost` if a rank has died."""
        if self._followers and self._followers.lost:
            raise BackendLost(self._followers.lost)

    def close(self) -> None:
        """End the other ranks, and free the memory of this one."""
        if self._followers:
            self._followers.close()
        if self._runner:
            self._runner.close()

    def _loaded(self) -> tuple[TorchRunner, Followers]:
        assert self._runner, "load comes first"
        assert self._followers, "load comes first"
        return self._runner, self._followers
