"""The contract that every backend must pass."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from itertools import cycle, islice
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from fllm.constraints import ConstString, JsonSchema
from fllm.errors import BackendUnavailable
from fllm.interfaces import Backend
from fllm.testing.backend_harness import BackendHarness, GenerationResult, Session, within
from fllm.tokenizer import Tokenizer
from fllm.values import TokenLogprob

ATTEMPTS = 5
"""Attempts of tests that a fast engine passes by: its outputs may be complete before they are inspected."""
LONG = 1_000_000
"""More tokens than any context has."""


def _scenario(scenario: Callable[[Any, BackendHarness], Awaitable[None]]) -> Callable[[Any], None]:
    """Return a test that runs a coroutine, for a pytest without a plugin for coroutines."""

    def test(self: BackendContract) -> None:
        self.session().run(lambda harness: scenario(self, harness))

    test.__name__ = test.__qualname__ = scenario.__name__
    return test


class BackendContract:
    """Every backend passes this. The backend is started once and shared by the tests, which run in sequence.

    One prompt fills the context, so choose a small ``max_model_len`` where the model is large.
    """

    prompts: ClassVar[Sequence[Sequence[int]]]
    """Token ids of some prompts, at least two, of a few tokens each."""
    supports_sampling: ClassVar[bool] = True
    """The backend samples: different seeds give different outputs."""
    supports_logprobs: ClassVar[bool | None] = True
    """True: reports log-probabilities of tokens and of the prompt. False: rejects them. None: either."""
    timeout: ClassVar[float] = 120.0
    """Seconds after which a test that still waits has failed."""
    _session: ClassVar[Session | None] = None

    @classmethod
    def backend(cls) -> Backend:
        """Return a new backend that is not started."""
        raise NotImplementedError

    @classmethod
    def session(cls) -> Session:
        """Return the session of the started backend."""
        if cls._session is None:
            cls._session = Session(cls.backend, cls.timeout)
        return cls._session

    @classmethod
    def teardown_class(cls) -> None:
        """Stop the backend."""
        session, cls._session = cls._session, None
        if session is not None:
            session.close()

    @_scenario
    async def test_the_model_card_can_be_encoded_and_fits_the_prompts(self, harness: BackendHarness) -> None:
        msgspec.msgpack.encode(harness.card)
        assert harness.card.max_model_len > max(map(len, self.prompts)), (
            "max_model_len is too small for the prompts"
        )

    @_scenario
    async def test_max_tokens_limits_the_output(self, harness: BackendHarness) -> None:
        for limit in (0, 1, 2, 16):
            output = await harness.complete(self.prompts[0], max_tokens=limit)
            assert (len(output.tokens), output.finish_reason) == (limit, "length"), (
                f"max_tokens={limit}: {output}"
            )

    @_scenario
    async def test_output_ends_at_a_stop_token_or_max_tokens(self, harness: BackendHarness) -> None:
        for token_ids in self.prompts:
            output = await harness.complete(token_ids, ignore_eos=False)
            assert len(output.tokens) <= 16, output
            assert output.finish_reason == "stop" or len(output.tokens) == 16, output

    @_scenario
    async def test_greedy_output_is_reproducible_and_independent_of_the_batch(
        self, harness: BackendHarness
    ) -> None:
        alone = [await harness.complete(token_ids) for token_ids in self.prompts]
        again = [await harness.complete(token_ids) for token_ids in self.prompts]
        among = await asyncio.gather(*map(harness.complete, self.prompts))
        _same(alone, again, "the same prompt gave two outputs")
        _same(alone, among, "an output depends on the other sequences of the batch")

    @_scenario
    async def test_concurrent_requests_do_not_affect_each_other(self, harness: BackendHarness) -> None:
        requests: list[tuple[Sequence[int], dict[str, Any]]] = [
            (token_ids, {"max_tokens": 1 + (7 * i) % 16, "seed": i, "temperature": float(i % 3 > 0)})
            for i, token_ids in enumerate(islice(cycle(self.prompts), 24))
        ]
        alone = [await harness.complete(token_ids, **sampling) for token_ids, sampling in requests]
        among = await asyncio.gather(
            *(harness.complete(token_ids, **sampling) for token_ids, sampling in requests)
        )
        _same(alone, among, "an output depends on the other sequences of the batch")

    @_scenario
    async def test_the_seed_determines_the_output(self, harness: BackendHarness) -> None:
        seeds = [0, 1, 2, 3, 4, 5, 6, 7, 0]
        outputs = [await harness.complete(self.prompts[0], seed=seed, temperature=1.5) for seed in seeds]
        _same(outputs[:1], outputs[-1:], "one seed gave two outputs")
        if self.supports_sampling:
            assert any(output != outputs[0] for output in outputs), "eight seeds gave the same output"

    @_scenario
    async def test_a_stop_token_ends_the_output_and_is_included(self, harness: BackendHarness) -> None:
        for token_ids in self.prompts:
            tokens = (await harness.complete(token_ids)).tokens
            stop = tokens[len(tokens) // 2]
            output = await harness.complete(token_ids, stop_token_ids=(stop,))
            assert output.tokens == tokens[: tokens.index(stop) + 1], (
                f"stop token {stop} in {tokens}: {output}"
            )
            assert (output.finish_reason, output.stop_token) == ("stop", stop), output

    @_scenario
    async def test_min_tokens_delays_stop_tokens(self, harness: BackendHarness) -> None:
        first = (await harness.complete(self.prompts[0])).tokens[0]
        output = await harness.complete(self.prompts[0], stop_token_ids=(first,), min_tokens=5)
        assert len(output.tokens) >= 5, f"min_tokens=5: {output}"

    @_scenario
    async def test_logprobs_are_complete_or_rejected(self, harness: BackendHarness) -> None:
        for token_ids in self.prompts:
            asked: dict[str, Any] = {"logprobs": 2, "prompt_logprobs": 2, "max_tokens": 5}
            if self.supports_logprobs is not True and await harness.rejects(token_ids, **asked):
                continue
            assert self.supports_logprobs is not False, (
                "log-probabilities must be rejected with a RequestError"
            )
            output = await harness.complete(token_ids, **asked)
            _check_logprobs(output.logprobs, output.tokens, greedy=True)
            assert output.prompt_logprobs is not None, "the first step has no prompt_logprobs"
            first, *rest = output.prompt_logprobs
            assert first is None, "the first prompt token has no log-probability"
            _check_logprobs(rest, token_ids[1:], greedy=False)
            assert (await harness.complete(token_ids)).logprobs is None, "logprobs were not requested"

    @_scenario
    async def test_constrained_output_obeys_the_constraint(self, harness: BackendHarness) -> None:
        if harness.card.grammar is None:  # no request has a constraint then
            return
        tokenizer = Tokenizer.load(Path(harness.card.tokenizer))
        expected = await harness.complete(self.prompts[1])
        for text in ("yes", '{"city": "서울"}'):
            constrained = harness.complete(
                self.prompts[0], constraint=ConstString(text), ignore_eos=False, max_tokens=64
            )
            output, free = await asyncio.gather(constrained, harness.complete(self.prompts[1]))
            written = output.tokens if output.stop_token is None else output.tokens[:-1]
            text_found = tokenizer.decode(written, skip_special_tokens=True)
            assert text_found == text, f"the constraint requires {text!r}; the output is {text_found!r}"
            _same([expected], [free], "an output depends on the constraint of another sequence")
        broken = JsonSchema('{"type": "unknown"}')
        assert await harness.rejects(self.prompts[0], constraint=broken), "an invalid schema is not rejected"

    @_scenario
    async def test_invalid_prompts_are_rejected(self, harness: BackendHarness) -> None:
        length = harness.card.max_model_len
        for wrong in ([], self._filled(length), self._filled(length + 1), [-1]):
            assert await harness.rejects(wrong), (
                f"a prompt of {len(wrong)} tokens, from {wrong[:1]}, is not rejected"
            )

    @_scenario
    async def test_a_prompt_can_fill_the_context_except_one_token(self, harness: BackendHarness) -> None:
        output = await harness.complete(self._filled(harness.card.max_model_len - 1))
        assert (len(output.tokens), output.finish_reason) == (1, "length"), output

    @_scenario
    async def test_closing_the_stream_aborts_the_request(self, harness: BackendHarness) -> None:
        expected = await harness.complete(self.prompts[0])
        for _ in range(ATTEMPTS):
            async with AsyncExitStack() as stack:
                for token_ids in islice(cycle(self.prompts), 4):
                    stream = harness.generate(token_ids, max_tokens=LONG)
                    await anext(await stack.enter_async_context(aclosing(stream)))
                counted = await harness.in_flight()
            await harness.wait_until_idle(self.timeout / 2)
            if counted:
                break
        else:
            raise AssertionError("status() counts no sequence while four are in flight")
        _same([expected], [await harness.complete(self.prompts[0])], "after an abort the output differs")

    @_scenario
    async def test_cancelling_before_the_first_token_aborts_the_request(
        self, harness: BackendHarness
    ) -> None:
        stream = harness.generate(self.prompts[0], max_tokens=LONG)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await stream.aclose()
        await harness.wait_until_idle(self.timeout / 2)

    def test_stop_ends_running_requests(self) -> None:
        for _ in range(ATTEMPTS):
            cut_short = self.session().run(self._stop)
            self.teardown_class()  # which stops it again
            if cut_short:
                return
        raise AssertionError("stop() lets sequences complete; they must end with BackendUnavailable")

    def test_stop_works_before_start(self) -> None:
        self.teardown_class()

        async def stop() -> None:
            await within(self.timeout, self.backend().stop())

        asyncio.run(stop())

    async def _stop(self, harness: BackendHarness) -> bool:
        """Stop the backend while it generates; return whether a sequence was cut short."""
        streams = [harness.generate(each, max_tokens=LONG) for each in islice(cycle(self.prompts), 4)]
        await asyncio.gather(*map(anext, streams))
        await harness.backend.stop()
        ends = await asyncio.gather(*map(_drained, streams), return_exceptions=True)
        for end in ends:
            assert end is None or isinstance(end, BackendUnavailable), (
                f"after stop(), a sequence ended with {end!r}"
            )
        for call in (harness.backend.status, lambda: harness.complete(self.prompts[0])):
            try:
                await call()
            except BackendUnavailable:
                continue
            raise AssertionError("after stop(), the backend must raise BackendUnavailable")
        return any(ends)

    def _filled(self, length: int) -> list[int]:
        return [*islice(cycle(self.prompts[0]), length)]


async def _drained(stream: Any) -> None:
    async with aclosing(stream):
        async for _ in stream:
            pass


def _same(expected: Sequence[GenerationResult], found: Sequence[GenerationResult], problem: str) -> None:
    for one, other in zip(expected, found, strict=True):
        assert one == other, f"{problem}:\n  {one}\n  {other}"


def _check_logprobs(
    found: Sequence[TokenLogprob | None] | None, tokens: Sequence[int], *, greedy: bool
) -> None:
    assert found is not None, "the output has no log-probabilities"
    assert [each and each.token_id for each in found] == [*tokens], "there must be one for each token"
    for each in found:
        assert each
        values = [value for _, value in each.top]
        assert len(values) == 2, f"the top 2 were requested: {each}"
        assert values == sorted(values, reverse=True), f"the top log-probabilities must be sorted: {each}"
        assert max(each.logprob, *values) <= 1e-3, f"a log-probability must not exceed 0: {each}"
        assert sum(map(math.exp, values)) <= 1.001, f"the sum of the top probabilities exceeds 1: {each}"
        assert not greedy or each.logprob >= values[0] - 1e-3, f"a greedy token must be the likeliest: {each}"
