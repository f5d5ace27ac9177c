"""Sequences with and without a grammar in the same batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from threading import Event

import pytest
from support import fake_grammar
from support.fake_grammar import Numbers
from support.fake_runner import VOCABULARY, FakeRunner, expected_tokens
from support.manual_masks import MaskedRunner

from fllm.batching import BatchedBackend, BatchLimits
from fllm.config import BackendConfig, Speculation
from fllm.constraints import ConstString
from fllm.errors import BackendError, RequestError
from fllm.interfaces import BackendContext
from fllm.structured_output.interfaces import Vocabulary
from fllm.testing import plugins_with
from fllm.values import EngineOutput, GenerateRequest, SamplingParams
from fllm_backends.drafters.ngram import NgramDrafter


@pytest.fixture(autouse=True)
def vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the tokenizer's vocabulary by one of numbers."""
    monkeypatch.setattr("fllm.batching.backend.Tokenizer.load", lambda _: None)
    monkeypatch.setattr(
        "fllm.batching.backend.read_vocabulary", lambda *_: Vocabulary([b"t"] * VOCABULARY, (10,))
    )


@asynccontextmanager
async def running(
    runner: FakeRunner, grammar: str | None = "numbers", *, seqs: int = 16, **config: object
) -> AsyncGenerator[BatchedBackend]:
    engine = BatchedBackend(
        runner,
        BackendConfig(model="m", grammar=grammar, **config),  # type: ignore[arg-type]
        BackendContext(
            load_grammar=plugins_with(fake_grammar, installed=False).grammars.load,
            load_drafter=lambda name: NgramDrafter,
        ),
        limits=BatchLimits(max_num_seqs=seqs, max_num_batched_tokens=64, block_size=4),
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def request(
    name: str, text: str | None = None, token_ids: Sequence[int] = (1, 2, 3), **sampling: object
) -> GenerateRequest:
    constraint = None if text is None else ConstString(text)
    wanted = SamplingParams(**{"max_tokens": 9, "seed": 0, **sampling})  # type: ignore[arg-type]
    return GenerateRequest(name, list(token_ids), wanted, constraint=constraint)


async def steps(engine: BatchedBackend, asked: GenerateRequest) -> list[EngineOutput]:
    return [step async for step in engine.generate(asked)]


async def tokens(engine: BatchedBackend, asked: GenerateRequest) -> list[int]:
    return [token for step in await steps(engine, asked) for token in step.token_ids]


def run(runner: FakeRunner, scenario: Callable[[BatchedBackend], object], **config: object) -> None:
    async def main() -> None:
        async with running(runner, **config) as engine:  # type: ignore[arg-type]
            await scenario(engine)  # type: ignore[misc]

    asyncio.run(main())


def test_the_output_follows_the_grammar_and_ends_without_an_extra_step() -> None:
    runner = MaskedRunner(eos=(10,))

    async def scenario(engine: BatchedBackend) -> None:
        found = await steps(engine, request("r", "1234"))
        assert [token for step in found for token in step.token_ids] == [1, 2, 3, 4]
        assert (found[-1].finish_reason, found[-1].stop_token) == ("stop", None)

    run(runner, scenario)
    assert len(runner.batches) == 4


@pytest.mark.parametrize(
    "sampling",
    [
        {"min_tokens": 8},
        {"ignore_eos": True},
        {"stop_token_ids": (1, 2)},
        {"min_tokens": 3, "stop_token_ids": (1,)},
        {"logit_bias": {1: -100.0}},
    ],
)
def test_no_sampling_parameter_takes_away_the_last_allowed_token(sampling: dict[str, object]) -> None:
    async def scenario(engine: BatchedBackend) -> None:
        assert await tokens(engine, request("r", "1212", **sampling)) == [1, 2, 1, 2]

    run(MaskedRunner(eos=(10,)), scenario)


def test_an_empty_text_ends_with_an_end_of_sequence() -> None:
    async def scenario(engine: BatchedBackend) -> None:
        [step] = await steps(engine, request("r", "", min_tokens=3))
        assert (step.token_ids, step.stop_token) == ([10], 10)

    run(MaskedRunner(eos=(10,)), scenario)


@pytest.mark.parametrize(("text", "why"), [("1x2", "x marks the spot"), ("1z2", "took more than")])
def test_a_grammar_that_fails_or_hangs_fails_its_own_sequence_alone(
    text: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fllm.structured_output.grammar_state.HANG_SECONDS", 0.05)
    free = request("free")

    async def scenario(engine: BatchedBackend) -> None:
        bad, good, other = await asyncio.gather(
            tokens(engine, request("bad", text)),
            tokens(engine, request("good", "456")),
            tokens(engine, free),
            return_exceptions=True,
        )
        assert isinstance(bad, BackendError)
        assert why in bad.message
        assert good == [4, 5, 6]
        assert other == expected_tokens(free, 0)
        assert await tokens(engine, request("later", "78")) == [7, 8]

    run(MaskedRunner(), scenario)


def test_a_hanging_mask_delays_a_batch_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fllm.structured_output.grammar_state.HANG_SECONDS", 0.01)
    monkeypatch.setattr("support.fake_grammar.HANG_SECONDS", 30.0)
    began = time.monotonic()

    async def scenario(engine: BatchedBackend) -> None:
        asked = [request("bad", "1z"), *(request(f"r{n}", "123") for n in range(4))]
        bad, *others = await asyncio.gather(*(tokens(engine, each) for each in asked), return_exceptions=True)
        assert isinstance(bad, BackendError)
        assert others == [[1, 2, 3]] * 4

    run(MaskedRunner(), scenario)
    assert time.monotonic() - began < 30.0  # it was left alone


def test_a_preempted_sequence_continues_where_its_grammar_was() -> None:
    all_arrived = Event()
    runner = MaskedRunner(blocks=5, hook=lambda _: all_arrived.wait())

    async def scenario(engine: BatchedBackend) -> None:
        texts = ["123456789"[n:] + "123456789"[:n] for n in range(3)]
        running = asyncio.gather(*(tokens(engine, request(text, text)) for text in texts))
        while len(engine._queues) < len(texts):  # the first one does not end before the others arrive
            await asyncio.sleep(0.001)
        all_arrived.set()
        found = await running
        assert ["".join(map(str, each)) for each in found] == texts
        assert (await engine.status()).preemptions > 0

    run(runner, scenario)


def test_a_constrained_sequence_drafts_nothing() -> None:
    speculation = Speculation(method="ngram", num_speculative_tokens=4, settings={"prompt_lookup_min": 1})

    async def scenario(engine: BatchedBackend) -> None:
        repeated = request("r", "12121212", token_ids=[1, 2] * 6)
        assert await tokens(engine, repeated) == [1, 2] * 4
        assert (await engine.status()).drafted == 0

    run(MaskedRunner(), scenario, speculative_config=speculation)


def test_a_constraint_is_compiled_once_and_a_rejection_reaches_its_request() -> None:
    Numbers.compiled.clear()

    async def scenario(engine: BatchedBackend) -> None:
        await asyncio.gather(*(tokens(engine, request(f"r{n}", "5")) for n in range(3)))
        await tokens(engine, request("again", "5"))
        with pytest.raises(RequestError, match="no exclamation marks"):
            await tokens(engine, request("bad", "!"))

    run(MaskedRunner(), scenario)
    assert Numbers.compiled == ["5", "!"]


@pytest.mark.parametrize(("runner", "grammar"), [(FakeRunner, "numbers"), (MaskedRunner, None)])
def test_without_masks_or_a_grammar_backend_a_constraint_is_rejected(
    runner: type[FakeRunner], grammar: str | None
) -> None:
    async def scenario(engine: BatchedBackend) -> None:
        with pytest.raises(RequestError, match="can't constrain its output"):
            await tokens(engine, request("r", "1"))
        assert await tokens(engine, request("free")) == expected_tokens(request("free"), 0)

    run(runner(), scenario, grammar=grammar)


def test_the_number_of_allowed_tokens_is_reported_if_it_is_requested() -> None:
    async def scenario(engine: BatchedBackend) -> None:
        asked = request("r", "f1342", allowed_counts=True)
        found = await steps(engine, asked)
        counts = [count for step in found for count in step.allowed or ()]
        assert [token for step in found for token in step.token_ids] == [1, 3, 4, 2]
        assert counts == [1, 1, 1, 1]
        free = await steps(engine, request("free", allowed_counts=True))
        assert {step.allowed for step in free} == {None}
        unasked = await steps(engine, request("unasked", "12"))
        assert {step.allowed for step in unasked} == {None}

    run(MaskedRunner(eos=(10,)), scenario)


def test_a_field_that_restricts_tokens_counts_like_a_grammar() -> None:
    async def scenario(engine: BatchedBackend) -> None:
        asked = request("r", allowed_counts=True, allowed_token_ids=(4, 5, 6), max_tokens=2)
        found = await steps(engine, asked)
        assert [count for step in found for count in step.allowed or ()] == [3, 3]

    run(MaskedRunner(eos=(10,)), scenario)


def test_counts_of_forced_tokens_come_with_their_log_probabilities() -> None:
    async def scenario(engine: BatchedBackend) -> None:
        found = await steps(engine, request("r", "f1342", allowed_counts=True, logprobs=1))
        tokens = [token for step in found for token in step.token_ids]
        assert tokens == [1, 3, 4, 2]
        assert [len(step.allowed or ()) for step in found] == [len(step.token_ids) for step in found]

    run(MaskedRunner(eos=(10,)), scenario)
