"""Drafts in the scheduler change only the number of steps."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.drafting import always_drafting
from support.fake_runner import FakeRunner, Oracle, expected_tokens, logprob

from fllm.batching import RunnerCapabilities
from fllm.batching.block_pool import BlockPool
from fllm.batching.engine_loop import EngineLoop, Outcome
from fllm.batching.limits import BatchLimits
from fllm.batching.scheduler import Scheduler
from fllm.config import BackendConfig, Speculation
from fllm.errors import ConfigError
from fllm.values import EngineOutput, GenerateRequest, SamplingParams
from fllm_backends.drafters.ngram import NgramDrafter

BLOCK = 4
ALWAYS = (True,)


class Harness:
    """A scheduler whose drafts are right where ``rights`` say so, stepped to the end of its sequences."""

    def __init__(
        self,
        rights: Sequence[bool],
        *,
        blocks: int = 64,
        tokens: int = 64,
        drafting: int = 16,
        eos: tuple[int, ...] = (),
        max_model_len: int = 1000,
        width: int = 5,
    ) -> None:
        self.pool = BlockPool(blocks, BLOCK)
        self.oracle = Oracle(rights, width)
        self.drafting = always_drafting(self.oracle, max_seqs=drafting)
        self.runner = FakeRunner(blocks=blocks, block_size=BLOCK, eos=eos)
        self.scheduler = Scheduler(
            self.pool,
            BatchLimits(max_num_batched_tokens=tokens, block_size=BLOCK),
            max_model_len=max_model_len,
            eos_token_ids=eos,
            drafting=self.drafting,
        )
        self.steps: dict[str, list[EngineOutput]] = {}

    def run(self, *requests: GenerateRequest) -> None:
        for request in requests:
            self.scheduler.add(request, seed=request.sampling.seed or 0, arrival_time=0.0)
            self.steps[request.request_id] = []
        while self.scheduler.busy:
            batch = self.scheduler.schedule()
            for request_id, step in self.scheduler.complete(batch, self.runner.execute(batch.rows)):
                self.steps[request_id].append(step)

    def tokens(self, request_id: str) -> list[int]:
        return [token for step in self.steps[request_id] for token in step.token_ids]

    def rows(self) -> list[list[tuple[int, int]]]:
        """Of each batch, the rows' tokens and how many of them were drafts."""
        return [[(row.count, row.drafts) for row in batch] for batch in self.runner.batches]


def request(request_id: str, token_ids: list[int], **sampling: object) -> GenerateRequest:
    return GenerateRequest(request_id, token_ids, SamplingParams(**{"max_tokens": 12, **sampling}))  # type: ignore[arg-type]


MIXED = [
    request("short", [1, 2], max_tokens=30),
    request("long", list(range(11)) * 2, max_tokens=9),
    request("same", list(range(11)) * 2, max_tokens=9),
    request("other seed", list(range(11)) * 2, max_tokens=9, seed=1),
    request("stops", [4] * 2 * BLOCK, max_tokens=40, stop_token_ids=(3,), min_tokens=4),
    request("one token", [4], max_tokens=1),
]


@given(
    rights=st.lists(st.booleans(), min_size=1, max_size=12),
    width=st.integers(1, 9),
    blocks=st.sampled_from([8, 11, 16, 64]),
    tokens=st.sampled_from([1, 5, 9, 64]),
)
def test_no_pattern_of_right_and_wrong_drafts_changes_an_output(
    rights: list[bool], width: int, blocks: int, tokens: int
):
    harness = Harness(rights, width=width, blocks=blocks, tokens=tokens)
    harness.run(*MIXED)
    harness.run(*[GenerateRequest(f"again {p.request_id}", p.token_ids, p.sampling) for p in MIXED])
    for each in MIXED:
        expected = expected_tokens(each, each.sampling.seed or 0, max_model_len=blocks * BLOCK)
        assert harness.tokens(each.request_id) == harness.tokens(f"again {each.request_id}") == expected
    assert harness.pool.num_free == harness.pool.num_blocks
    assert all(sum(row.count for row in batch) <= tokens for batch in harness.runner.batches)


def test_accepted_drafts_spare_steps_and_are_counted():
    harness = Harness(ALWAYS, width=3)
    harness.run(request("a", [1, 2], max_tokens=13))
    assert harness.rows() == [[(2, 0)], [(2, 1)], [(3, 2)], [(4, 3)], [(3, 2)]]
    assert [len(step.token_ids) for step in harness.steps["a"]] == [1, 2, 3, 4, 3]
    status = harness.scheduler.status()
    assert (status.drafted, status.accepted, status.drafters_off) == (8, 8, 0)


def test_rejected_drafts_cost_no_token():
    harness = Harness((False,))
    harness.run(request("a", [1, 2], max_tokens=5))
    assert [len(step.token_ids) for step in harness.steps["a"]] == [1] * 5
    assert harness.scheduler.status().accepted == 0


def test_the_drafter_is_updated_with_the_result_of_its_drafts():
    harness = Harness((True, True, False, False))
    harness.run(request("a", [1, 2], max_tokens=8))
    assert harness.oracle.results == [(1, 1), (2, 1), (1, 0), (1, 1)]
    assert harness.oracle.ended == ["a"]


@pytest.mark.parametrize("max_tokens", range(2, 9))
def test_no_draft_leads_beyond_max_tokens(max_tokens: int):
    harness = Harness(ALWAYS)
    harness.run(request("a", [1, 2], max_tokens=max_tokens))
    assert len(harness.tokens("a")) == max_tokens
    assert harness.steps["a"][-1].finish_reason == "length"


@pytest.mark.parametrize("max_model_len", range(3, 10))
def test_no_draft_leads_beyond_the_context(max_model_len: int):
    harness = Harness(ALWAYS, max_model_len=max_model_len)
    harness.run(request("a", [1, 2], max_tokens=100))
    assert len(harness.tokens("a")) == max_model_len - 2
    assert all(row.start + row.count < max_model_len for batch in harness.runner.batches for row in batch)


def test_what_was_accepted_after_a_stop_token_is_dropped():
    asked = request("a", [1, 2], max_tokens=12, logprobs=0)
    whole = expected_tokens(asked, 0)
    harness = Harness(ALWAYS, eos=(whole[3],))
    harness.run(asked)
    last = harness.steps["a"][-1]
    assert harness.tokens("a") == whole[: whole.index(whole[3]) + 1]
    assert (last.finish_reason, last.stop_token) == ("stop", whole[3])
    assert last.logprobs
    assert len(last.logprobs) == len(last.token_ids)


@pytest.mark.parametrize("rights", [ALWAYS, (True, True, False), (False,)])
def test_every_token_has_its_own_logprob(rights: Sequence[bool]):
    harness = Harness(rights)
    harness.run(request("a", [1, 2], logprobs=0))
    context = [1, 2]
    for step in harness.steps["a"]:
        assert step.logprobs is not None
        for token, found in zip(step.token_ids, step.logprobs, strict=True):
            assert found == logprob(context, token)
            context.append(token)


def test_the_prefix_cache_holds_accepted_tokens_and_never_rejected_ones():
    for rights in (ALWAYS, (True, False)):
        harness = Harness(rights)
        harness.run(request("a", [1] * 5, max_tokens=11))
        again = request("b", [1] * 5 + harness.tokens("a"))
        harness.run(again)
        assert harness.steps["b"][0].cached_tokens == 12
        assert harness.tokens("b") == expected_tokens(again, 0)


def test_nothing_is_drafted_while_too_many_run():
    harness = Harness(ALWAYS, drafting=2)
    harness.run(*[request(name, [1, 2], max_tokens=3 if name == "c" else 12) for name in "abc"])
    drafted = [sum(drafts for _, drafts in batch) for batch in harness.rows()]
    assert drafted[:3] == [0, 0, 0]
    assert drafted[3] == 2


def test_drafts_leave_a_token_of_the_batch_to_every_sequence():
    harness = Harness(ALWAYS, tokens=4)
    harness.run(*[request(name, [1, 2]) for name in "ab"])
    assert all(len(batch) == 2 for batch in harness.runner.batches[2:5])


def test_drafts_never_preempt():
    harness = Harness((False,), blocks=4, width=9)
    harness.run(request("greedy for blocks", [1, 2], max_tokens=13), request("b", [3, 4, 5], max_tokens=3))
    assert harness.scheduler.status().drafted > 0
    assert harness.scheduler.status().preemptions == 0


def test_a_prompt_is_computed_without_drafts():
    harness = Harness(ALWAYS, tokens=4)
    harness.run(request("a", [1] * 9, max_tokens=2, prompt_logprobs=0))
    assert [drafts for [(_, drafts)] in harness.rows()] == [0, 0, 0, 0]


class Plain(FakeRunner):
    """A runner that does not support drafts."""

    capabilities = RunnerCapabilities()


def test_speculation_needs_a_runner_that_verifies():
    config = BackendConfig(
        model="m", speculative_config=Speculation(method="ngram", num_speculative_tokens=5)
    )
    EngineLoop(FakeRunner(), config, BatchLimits(), drafter=NgramDrafter)
    with pytest.raises(ConfigError, match="--speculative-config: this backend can't verify"):
        EngineLoop(Plain(), config, BatchLimits(), drafter=NgramDrafter)


def test_the_loop_drafts_by_ngrams_if_configured():
    speculation = Speculation(method="ngram", num_speculative_tokens=3, settings={"prompt_lookup_min": 1})
    config = BackendConfig(model="m", speculative_config=speculation)
    loop = EngineLoop(FakeRunner(), config, BatchLimits(), drafter=NgramDrafter)
    assert loop.load(lambda progress: None).runtime["num_speculative_tokens"] == 3
    asked = request("a", list(range(11)) * 2, max_tokens=30)
    loop.submit(asked, seed=0, arrival_time=0.0)
    tokens: list[int] = []

    def deliver(outcomes: list[tuple[str, Outcome]]) -> None:
        for _, step in outcomes:
            assert isinstance(step, EngineOutput)
            tokens.extend(step.token_ids)
            if step.finish_reason:
                loop.end()

    loop.run(deliver)
    assert tokens == expected_tokens(asked, 0)
    assert loop.status().drafted > 0


def test_the_configuration_limits_the_batch_size_for_drafts():
    speculation = Speculation(method="ngram", num_speculative_tokens=3, disable_by_batch_size=9)
    config = BackendConfig(model="m", speculative_config=speculation)
    assert BatchLimits().with_config(config).max_drafting_seqs == 9
    assert (
        BatchLimits().with_config(BackendConfig(model="m")).max_drafting_seqs
        == BatchLimits().max_drafting_seqs
    )
