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
from fllm.testing.backend_harness import BackendHarness, GenerationResult, Session, with_timeout
from fllm.tokenizer import Tokenizer
from fllm.values import TokenLogprob

ATTEMPTS = 5
"""Attempts of tests that need running requests: a fast engine may complete them before they are inspected."""
LONG = 1_000_000
"""More tokens than any context has."""


def _synchronous(test: Callable[[Any, BackendHarness], Awaitable[None]]) -> Callable[[Any], None]:
    """Return a synchronous test that runs the coroutine, because pytest needs a plugin to run coroutines."""

    def run(self: BackendContract) -> None:
        self.session().run(lambda harness: test(self, harness))

    run.__name__ = run.__qualname__ = test.__name__
    return run


class BackendContract:
    """Every backend passes this. The backend is started once and shared by the tests, which run in sequence.

    One test fills the context with a prompt, so choose a small ``max_model_len`` if the model is large.
    """

    prompts: ClassVar[Sequence[Sequence[int]]]
    """Token ids of at least two prompts of a few tokens each."""
    supports_sampling: ClassVar[bool] = True
    """The backend samples, so that different seeds give different outputs."""
    supports_logprobs: ClassVar[bool | None] = True
    """True: log-probabilities of output and prompt are returned. False: they are rejected. None: either."""
    timeout: ClassVar[float] = 120.0
    """Seconds that a test may wait before it fails."""
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

    @_synchronous
    async def test_the_model_card_can_be_encoded_and_fits_the_prompts(self, harness: BackendHarness) -> None:
        msgspec.msgpack.encode(harness.card)
        assert harness.card.max_model_len > max(map(len, self.prompts)), (
            f"max_model_len={harness.card.max_model_len} must be greater than the length of each prompt"
        )

    @_synchronous
    async def test_max_tokens_limits_the_output(self, harness: BackendHarness) -> None:
        for limit in (0, 1, 2, 16):
            output = await harness.complete(self.prompts[0], max_tokens=limit)
            assert (len(output.tokens), output.finish_reason) == (limit, "length"), (
                f"max_tokens={limit} must give {limit} tokens and the finish_reason 'length', not {output}"
            )

    @_synchronous
    async def test_output_ends_at_a_stop_token_or_max_tokens(self, harness: BackendHarness) -> None:
        for token_ids in self.prompts:
            output = await harness.complete(token_ids, ignore_eos=False)
            assert len(output.tokens) <= 16, f"max_tokens=16 gave {len(output.tokens)} tokens: {output}"
            assert output.finish_reason == "stop" or len(output.tokens) == 16, (
                f"fewer than max_tokens=16 tokens require the finish_reason 'stop': {output}"
            )

    @_synchronous
    async def test_greedy_output_is_reproducible_and_independent_of_the_batch(
        self, harness: BackendHarness
    ) -> None:
        alone = [await harness.complete(token_ids) for token_ids in self.prompts]
        again = [await harness.complete(token_ids) for token_ids in self.prompts]
        among = await asyncio.gather(*map(harness.complete, self.prompts))
        _assert_equal(alone, again, "greedy output of the same prompt must be the same")
        _assert_equal(alone, among, "the output depends on concurrent requests")

    @_synchronous
    async def test_concurrent_requests_do_not_affect_each_other(self, harness: BackendHarness) -> None:
        requests: list[tuple[Sequence[int], dict[str, Any]]] = [
            (token_ids, {"max_tokens": 1 + (7 * i) % 16, "seed": i, "temperature": float(i % 3 > 0)})
            for i, token_ids in enumerate(islice(cycle(self.prompts), 24))
        ]
        alone = [await harness.complete(token_ids, **sampling) for token_ids, sampling in requests]
        among = await asyncio.gather(
            *(harness.complete(token_ids, **sampling) for token_ids, sampling in requests)
        )
        _assert_equal(alone, among, "the output depends on concurrent requests")

    @_synchronous
    async def test_the_seed_determines_the_output(self, harness: BackendHarness) -> None:
        seeds = [0, 1, 2, 3, 4, 5, 6, 7, 0]
        outputs = [await harness.complete(self.prompts[0], seed=seed, temperature=1.5) for seed in seeds]
        _assert_equal(outputs[:1], outputs[-1:], "the same seed must give the same output")
        if self.supports_sampling:
            assert any(output != outputs[0] for output in outputs), (
                "eight seeds gave the same output; without sampling, set supports_sampling = False"
            )

    @_synchronous
    async def test_a_stop_token_ends_the_output_and_is_included(self, harness: BackendHarness) -> None:
        for token_ids in self.prompts:
            tokens = (await harness.complete(token_ids)).tokens
            stop = tokens[len(tokens) // 2]
            output = await harness.complete(token_ids, stop_token_ids=(stop,))
            assert output.tokens == tokens[: tokens.index(stop) + 1], (
                f"with the stop token {stop}, {tokens} must end after its first {stop}: {output}"
            )
            assert (output.finish_reason, output.stop_token) == ("stop", stop), (
                f"after the stop token {stop}, finish_reason must be 'stop' and stop_token {stop}: {output}"
            )

    @_synchronous
    async def test_min_tokens_delays_stop_tokens(self, harness: BackendHarness) -> None:
        first = (await harness.complete(self.prompts[0])).tokens[0]
        output = await harness.complete(self.prompts[0], stop_token_ids=(first,), min_tokens=5)
        assert len(output.tokens) >= 5, f"min_tokens=5 gave {len(output.tokens)} tokens: {output}"

    @_synchronous
    async def test_logprobs_are_complete_or_rejected(self, harness: BackendHarness) -> None:
        for token_ids in self.prompts:
            options: dict[str, Any] = {"logprobs": 2, "prompt_logprobs": 2, "max_tokens": 5}
            if self.supports_logprobs is not True and await harness.rejects(token_ids, **options):
                continue
            assert self.supports_logprobs is not False, (
                "log-probabilities must be rejected with RequestError; if the backend supports them, "
                "set supports_logprobs = True"
            )
            output = await harness.complete(token_ids, **options)
            _check_logprobs(output.logprobs, output.tokens, greedy=True)
            assert output.prompt_logprobs is not None, (
                "the first EngineOutput must have prompt_logprobs if they are requested"
            )
            first, *rest = output.prompt_logprobs
            assert first is None, (
                "the first entry of prompt_logprobs must be None, as nothing precedes that token"
            )
            _check_logprobs(rest, token_ids[1:], greedy=False)
            plain = await harness.complete(token_ids)
            assert plain.logprobs is None, f"log-probabilities were not requested: {plain}"

    @_synchronous
    async def test_constrained_output_obeys_the_constraint(self, harness: BackendHarness) -> None:
        if harness.card.grammar is None:  # then no request has a constraint
            return
        tokenizer = Tokenizer.load(Path(harness.card.tokenizer))
        expected = await harness.complete(self.prompts[1])
        for text in ("yes", '{"city": "서울"}'):
            constrained = harness.complete(
                self.prompts[0], constraint=ConstString(text), ignore_eos=False, max_tokens=64
            )
            output, free = await asyncio.gather(constrained, harness.complete(self.prompts[1]))
            output_ids = output.tokens if output.stop_token is None else output.tokens[:-1]
            received = tokenizer.decode(output_ids, skip_special_tokens=True)
            assert received == text, (
                f"expected {text!r}, the only text that the constraint allows; received {received!r}"
            )
            _assert_equal([expected], [free], "the output depends on the constraint of a concurrent request")
        broken = JsonSchema('{"type": "unknown"}')
        assert await harness.rejects(self.prompts[0], constraint=broken), (
            f"the invalid schema {broken.schema!r} must be rejected with RequestError"
        )

    @_synchronous
    async def test_invalid_prompts_are_rejected(self, harness: BackendHarness) -> None:
        length = harness.card.max_model_len
        for wrong in ([], self._prompt_of_length(length), self._prompt_of_length(length + 1), [-1]):
            assert await harness.rejects(wrong), (
                f"a prompt of {len(wrong)} tokens that begins with {wrong[:1]} must be rejected "
                f"with RequestError (max_model_len={length})"
            )

    @_synchronous
    async def test_a_prompt_can_fill_the_context_except_one_token(self, harness: BackendHarness) -> None:
        output = await harness.complete(self._prompt_of_length(harness.card.max_model_len - 1))
        assert (len(output.tokens), output.finish_reason) == (1, "length"), (
            f"a prompt of max_model_len - 1 tokens must give 1 token and the finish_reason 'length': {output}"
        )

    @_synchronous
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
            raise AssertionError(
                "status() reports no running or waiting sequence while four requests are running"
            )
        _assert_equal(
            [expected],
            [await harness.complete(self.prompts[0])],
            "the output differs after other requests were aborted",
        )

    @_synchronous
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
            aborted = self.session().run(self._stop)
            self.teardown_class()  # calls stop() again
            if aborted:
                return
        raise AssertionError(
            "stop() lets running requests complete; it must end them with BackendUnavailable"
        )

    def test_stop_works_before_start(self) -> None:
        self.teardown_class()

        async def stop() -> None:
            await with_timeout(self.timeout, self.backend().stop())

        asyncio.run(stop())

    async def _stop(self, harness: BackendHarness) -> bool:
        """Stop the backend while it generates; return whether a request was aborted."""
        streams = [harness.generate(each, max_tokens=LONG) for each in islice(cycle(self.prompts), 4)]
        await asyncio.gather(*map(anext, streams))
        await harness.backend.stop()
        ends = await asyncio.gather(*map(_drain, streams), return_exceptions=True)
        for end in ends:
            assert end is None or isinstance(end, BackendUnavailable), (
                f"after stop(), a request must end with BackendUnavailable, not {end!r}"
            )
        for call in (harness.backend.status, lambda: harness.complete(self.prompts[0])):
            try:
                await call()
            except BackendUnavailable:
                continue
            raise AssertionError("after stop(), status() and generate() must raise BackendUnavailable")
        return any(ends)

    def _prompt_of_length(self, length: int) -> list[int]:
        return [*islice(cycle(self.prompts[0]), length)]


async def _drain(stream: Any) -> None:
    async with aclosing(stream):
        async for _ in stream:
            pass


def _assert_equal(
    expected: Sequence[GenerationResult], found: Sequence[GenerationResult], problem: str
) -> None:
    for one, other in zip(expected, found, strict=True):
        assert one == other, f"{problem}\n  expected {one}\n  received {other}"


def _check_logprobs(
    found: Sequence[TokenLogprob | None] | None, tokens: Sequence[int], *, greedy: bool
) -> None:
    assert found is not None, "log-probabilities are requested but not returned"
    token_ids = [each and each.token_id for each in found]
    assert token_ids == [*tokens], (
        f"expected log-probabilities of the tokens {[*tokens]}, received {token_ids}"
    )
    for each in found:
        assert each
        values = [value for _, value in each.top]
        assert len(values) == 2, f"expected the 2 most likely tokens in top: {each}"
        assert values == sorted(values, reverse=True), (
            f"top must be sorted, the most likely token first: {each}"
        )
        assert max(each.logprob, *values) <= 1e-3, f"a log-probability must not exceed 0: {each}"
        assert sum(map(math.exp, values)) <= 1.001, (
            f"the probabilities of the top tokens add up to more than 1: {each}"
        )
        assert not greedy or each.logprob >= values[0] - 1e-3, (
            f"a greedy token must be the most likely one: {each}"
        )
