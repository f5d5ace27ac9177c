"""Generate text with the engine and the torch runner, in this process and without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

from support.drafting import AlwaysOn

from fllm.batching.engine_loop import EngineLoop, Outcome
from fllm.batching.limits import BatchLimits
from fllm.config import BackendConfig, Device, Speculation
from fllm.plugins.loader import load_plugins
from fllm.values import EngineOutput, EngineStats, GenerateRequest, SamplingParams, TokenLogprob
from fllm_backends.torch.options import read_torch_config
from fllm_backends.torch.runner import TorchRunner


class Generation:
    """What the engine generates for these requests, all submitted at once."""

    def __init__(
        self, directory: Path, prompts: list[GenerateRequest], speculation: Speculation | None, **config: Any
    ) -> None:
        """Generate everything. ``config`` are fields of `BackendConfig`."""
        self.tokens: dict[str, list[int]] = {prompt.request_id: [] for prompt in prompts}
        self.logprobs: dict[str, list[TokenLogprob]] = {prompt.request_id: [] for prompt in prompts}
        asked = BackendConfig(model=str(directory), speculative_config=speculation, **config)
        runner = TorchRunner(read_torch_config(asked), Device("cpu"), 8)
        self._left = len(prompts)
        drafter = load_plugins().drafters.load(speculation.method) if speculation else None
        self._loop = EngineLoop(runner, asked, BatchLimits(max_num_seqs=8), drafter=drafter)
        with patch("fllm.batching.drafting.drafting.DraftMeter", AlwaysOn):
            self._loop.load(lambda progress: None)
        for index, prompt in enumerate(prompts):
            self._loop.submit(prompt, seed=index, arrival_time=0.0)
        self._loop.run(self._deliver)

    @property
    def status(self) -> EngineStats:
        """The engine's totals."""
        return self._loop.status()

    def _deliver(self, outcomes: list[tuple[str, Outcome]]) -> None:
        for request_id, step in outcomes:
            assert isinstance(step, EngineOutput), step
            self.tokens[request_id] += step.token_ids
            self.logprobs[request_id] += step.logprobs or []
            self._left -= step.finish_reason is not None
        if not self._left:
            self._loop.end()


def prompt(request_id: str, token_ids: list[int], **sampling: Any) -> GenerateRequest:
    """Return a greedy request."""
    return GenerateRequest(
        request_id, token_ids, SamplingParams(**{"max_tokens": 40, "temperature": 0.0, **sampling})
    )
