"""A runner is checked when its backend is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from support.fake_runner import FakeRunner

from fllm import BackendConfig, BackendContext, ConfigError, ModelCard, Progress
from fllm.batching import BatchedBackend, RunnerCapabilities, Sampled
from fllm.config import Speculation


class Undeclared:
    def load(self, progress: Callable[[Progress], None]) -> ModelCard: ...
    def allocate(self, block_size: int) -> int: ...
    def execute(self, batch: Sequence[Any]) -> Sequence[Sampled]: ...
    def close(self) -> None: ...


class Misdeclared(Undeclared):
    capabilities = {"applies_masks": True}  # noqa: RUF012


class Masking(Undeclared):
    capabilities = RunnerCapabilities(applies_masks=True)


@pytest.mark.parametrize(
    ("runner", "config", "complaint"),
    [
        (Undeclared, {}, "the model runner Undeclared needs the members capabilities, load, "),
        (
            Misdeclared,
            {},
            "Misdeclared.capabilities must be a fllm.batching.RunnerCapabilities",
        ),
        (
            FakeRunner,
            {"speculative_config": Speculation(method="acme", num_speculative_tokens=2)},
            "--speculative-config: the backend has no",
        ),
        (Masking, {"grammar": "acme"}, "--grammar-backend acme: the backend has no"),
    ],
)
def test_a_runner_that_can_not_be_used_is_an_error(
    runner: type[Any], config: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        BatchedBackend(runner(), BackendConfig(model="m", **config), BackendContext())
