"""A drafter that fails, or that proposes nonsense, harms no request: it is switched off with one line."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from support.drafting import always_drafting
from support.fake_runner import FakeRunner, Oracle, expected_tokens

from fllm import BackendConfig, ConfigError, DraftedSequence, DraftRequest, PluginError, Progress
from fllm.batching.block_pool import BlockPool
from fllm.batching.drafting import open_drafting
from fllm.batching.limits import BatchLimits
from fllm.batching.scheduler import Scheduler
from fllm.config import Speculation
from fllm.values import EngineOutput, EngineStats, GenerateRequest, ModelCard, SamplingParams


class Proposing(Oracle):
    """Proposes what a function returns."""

    def __init__(self, propose: Callable[[Sequence[DraftRequest]], Any]) -> None:
        super().__init__()
        self._propose = propose
        self.calls = 0

    def propose(self, batch: Sequence[DraftRequest]) -> Any:
        self.calls += 1
        return self._propose(batch)


class Failing(Oracle):
    """Raises in one of its methods."""

    def __init__(self, method: str) -> None:
        super().__init__()
        setattr(self, method, self._fail)

    def _fail(self, *_: object) -> Any:
        raise KeyError("state")


def generate(drafter: Any) -> tuple[list[list[int]], EngineStats]:
    """Return the tokens of two requests, which must be those without drafts."""
    runner = FakeRunner()
    scheduler = Scheduler(
        BlockPool(64, 4),
        BatchLimits(block_size=4),
        max_model_len=1000,
        drafting=(drafting := always_drafting(drafter)),
    )
    asked = [GenerateRequest(name, [1, 2, 3], SamplingParams(max_tokens=20)) for name in ("a", "b")]
    tokens: dict[str, list[int]] = {each.request_id: [] for each in asked}
    for each in asked:
        scheduler.add(each, seed=0, arrival_time=0.0)
    while scheduler.busy:
        batch = scheduler.schedule()
        for name, output in scheduler.complete(batch, runner.execute(batch.rows)):
            assert isinstance(output, EngineOutput)
            tokens[name] += output.token_ids
    drafting.close()
    assert list(tokens.values()) == [expected_tokens(each, 0) for each in asked]
    return list(tokens.values()), scheduler.status()


@pytest.mark.parametrize(
    ("propose", "complaint"),
    [
        (lambda batch: 1 / 0, "ZeroDivisionError"),
        (lambda batch: [[0]] * (len(batch) + 1), "it proposed other than 2 lists of tokens for 2 sequences"),
        (lambda batch: [[0]], "it proposed other than 2 lists"),
        (lambda batch: itertools.repeat([0]), "it proposed other than 2 lists"),
        (lambda batch: None, "TypeError"),
        (lambda batch: [None, []], "TypeError"),
        (lambda batch: [[0] * (batch[0].max_tokens + 1), []], "it proposed more than 1 tokens"),
        (lambda batch: [itertools.repeat(0), []], "it proposed more than 1 tokens"),
        (lambda batch: [[11], []], "it proposed the token 11; tokens are 0 to 10"),
        (lambda batch: [[-1], []], "it proposed the token -1; tokens are 0 to 10"),
        (lambda batch: [[1.0], []], "TypeError"),
        (lambda batch: [["1"], []], "TypeError"),
    ],
)
def test_nonsense_switches_the_drafter_off(
    propose: Callable[[Any], Any], complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    drafter = Proposing(propose)
    _, status = generate(drafter)
    assert (drafter.calls, status.drafted, status.drafters_off) == (1, 0, 1)
    [line] = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert line.message.startswith("the drafter fake failed and is switched off: ")
    assert complaint in line.message
    assert line.exc_info is None


@pytest.mark.parametrize("method", ["start", "propose", "verified", "end", "close"])
def test_an_error_in_any_method_switches_the_drafter_off(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, status = generate(Failing(method))
    assert status.drafters_off == 1
    [line] = [each.message for each in caplog.records if each.levelno >= logging.WARNING]
    assert line == "the drafter fake failed and is switched off: KeyError: 'state'"


def test_numbers_of_any_kind_are_tokens() -> None:
    class Number:
        def __index__(self) -> int:
            return 3

    _, status = generate(Proposing(lambda batch: ((Number(),) for _ in batch)))
    assert status.drafted > 0
    assert status.drafters_off == 0


def test_a_drafter_sees_tokens_grow_and_sequences_that_end_or_are_aborted() -> None:
    seen: dict[str, list[int]] = {}

    def propose(batch: Sequence[DraftRequest]) -> list[list[int]]:
        for each in batch:
            before = seen.setdefault(each.sequence.id, [])
            tokens = list(each.sequence.token_ids)
            assert len(tokens) > len(before)
            assert tokens[: len(before)] == before
            seen[each.sequence.id] = tokens
        return [[] for _ in batch]

    drafter = Proposing(propose)
    tokens, _ = generate(drafter)
    assert [each[3:] for each in seen.values()] == [each[:-2] for each in tokens]  # none before max_tokens
    assert sorted(drafter.ended) == ["a", "b"]
    assert drafter.closed


def test_the_scope_is_the_namespace_of_the_prefix_cache() -> None:
    scopes: dict[str, bytes] = {}

    class Scoped(Oracle):
        def start(self, sequence: DraftedSequence) -> None:
            super().start(sequence)
            scopes[sequence.id] = sequence.scope

    scheduler = Scheduler(
        BlockPool(64, 4), BatchLimits(block_size=4), max_model_len=1000, drafting=always_drafting(Scoped())
    )
    for name, salt in (("a", "one"), ("b", "one"), ("c", "two"), ("d", "")):
        request = GenerateRequest(name, [1, 2], SamplingParams(max_tokens=2), cache_salt=salt)
        scheduler.add(request, seed=0, arrival_time=0.0)
    assert scopes["a"] == scopes["b"]
    assert len(set(scopes.values())) == 3
    scheduler.abort("a")


CARD = ModelCard(tokenizer="", max_model_len=100, runtime={"vocab_size": 11})
CONFIG = BackendConfig(
    model="m", speculative_config=Speculation(method="acme", num_speculative_tokens=3, settings={"x": 1})
)


def ignore(progress: Progress) -> None:
    """Ignore progress."""


def test_the_context_has_the_settings_and_the_model() -> None:
    contexts: list[Any] = []

    def create(context: Any) -> Oracle:
        contexts.append(context)
        return Oracle()

    open_drafting(create, CONFIG, CARD, BatchLimits(max_num_seqs=5), ignore)
    [context] = contexts
    assert (context.card, context.vocab_size, context.settings) == (CARD, 11, {"x": 1})
    assert (context.num_speculative_tokens, context.max_num_seqs) == (3, 5)


def test_a_drafter_that_can_not_be_created_is_an_error_of_one_line() -> None:
    def refuse(context: Any) -> Any:
        raise ConfigError("name a model")

    with pytest.raises(ConfigError, match="name a model"):
        open_drafting(refuse, CONFIG, CARD, BatchLimits(), ignore)
    with pytest.raises(PluginError, match="the drafter 'acme' can't be created: ZeroDivisionError"):
        open_drafting(lambda context: 1 / 0, CONFIG, CARD, BatchLimits(), ignore)  # type: ignore[arg-type, return-value]
    with pytest.raises(PluginError, match="the drafter 'acme' is a list; it needs the members start, "):
        open_drafting(lambda context: [], CONFIG, CARD, BatchLimits(), ignore)  # type: ignore[arg-type, return-value]
