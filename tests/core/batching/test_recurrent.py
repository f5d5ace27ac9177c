"""Models with a state for each sequence: no shared blocks, no drafts, and states that never go back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import settings
from msgspec.structs import replace
from support.fake_runner import FakeRunner, Oracle
from support.manual_masks import MaskedRunner

from fllm.batching import Row, Sampled
from fllm.batching.block_pool import BlockPool
from fllm.batching.engine_loop import EngineLoop
from fllm.batching.limits import BatchLimits
from fllm.config import BackendConfig, Speculation
from fllm.errors import ConfigError

from .test_late_masks import LateMaskMachine


class RecurrentRunner(MaskedRunner):
    """Keeps the tokens that the state of each slot has seen."""

    states: dict[int, list[int]]

    def execute(self, batch: Sequence[Row]) -> list[Sampled]:
        states = self.__dict__.setdefault("states", {})
        assert len({row.slot for row in batch}) == len(batch), "two rows have the same slot"
        for row in batch:
            seen = [] if row.start == 0 else states[row.slot]
            assert seen == list(row.token_ids[: row.start]), "the state is that of another position"
            states[row.slot] = list(row.token_ids[: row.start + row.count])
        return super().execute(batch)


class RecurrentMachine(LateMaskMachine):
    runner_type = RecurrentRunner
    recurrent = True


RecurrentMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestRecurrent = RecurrentMachine.TestCase


def test_a_pool_that_shares_no_blocks_finds_none() -> None:
    pool = BlockPool(2, 4, share_blocks=False)
    [block] = pool.allocate(1)
    pool.cache(block, b"hash")
    assert pool.find_cached([b"hash"]) == []
    pool.free([block])
    assert pool.find_cached([b"hash"]) == []
    assert pool.num_free == 2


def engine(**config: object) -> EngineLoop:
    runner = FakeRunner()
    runner.card = replace(runner.card, recurrent=True)
    settings = BackendConfig(model="m", **config)  # type: ignore[arg-type]
    return EngineLoop(runner, settings, BatchLimits(block_size=4), drafter=lambda context: Oracle())


def test_the_runtime_says_that_the_prefix_cache_is_not_used() -> None:
    assert engine().load(lambda _: None).runtime["enable_prefix_caching"] is False


def test_drafts_are_refused() -> None:
    speculation = Speculation(method="ngram", num_speculative_tokens=5)
    with pytest.raises(ConfigError, match="--speculative-config: this model keeps a state"):
        engine(speculative_config=speculation).load(lambda _: None)
