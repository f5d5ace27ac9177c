"""What every backend promises."""

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
from fllm.testing.backend_harness import Answer, Door, Session, within
from fllm.tokenizer import Tokenizer
from fllm.values import TokenLogprob

ATTEMPTS = 5
"""A fast engine may have ended its answers before anybody looks at them; then they are asked for again."""
LONG = 1_000_000
"""More tokens than a context has."""


def _played(scenario: Callable[[Any, Door], Awaitable[None]]) -> Callable[[Any], None]:
    """A test of a scenario, for a pytest that knows no coroutines."""

    def test(self: BackendContract) -> None:
        self.session().play(lambda door: scenario(self, door))

    test.__name__ = test.__qualname__ = scenario.__name__
    return test


class BackendContract:
    """Every backend passes this. It is started once and used by one test after another.

    One prompt fills the context, so choose a small ``max_model_len`` where the model is large.
    """

    prompts: ClassVar[Sequence[Sequence[int]]]
    """Token ids of some prompts, at least two, of a few tokens each."""
    draws: ClassVar[bool] = True
    """It samples: other seeds give other answers."""
    logprobs: ClassVar[bool | None] = True
    """It reports log-probabilities of tokens and of the prompt; False: it refuses to; None: either."""
    patience: ClassVar[float] = 120.0
    """Seconds after which whatever still waits has failed."""
    _session: ClassVar[Session | None] = None

    @classmethod
    def backend(cls) -> Backend:
        """A new backend, not yet started."""
        raise NotImplementedError

    @classmethod
    def session(cls) -> Session:
        """The started backend."""
        if cls._session is None:
            cls._session = Session(cls.backend, cls.patience)
        return cls._session

    @classmethod
    def teardown_class(cls) -> None:
        """Stop it."""
        session, cls._session = cls._session, None
        if session is not None:
            session.close()

    @_played
    async def test_the_card_can_travel_and_leaves_room_for_an_answer(self, door: Door) -> None:
        msgspec.msgpack.encode(door.card)
        assert door.card.max_model_len > max(map(len, self.prompts)), (
            "max_model_len is too small for the prompts"
        )

    @_played
    async def test_an_answer_has_as_many_tokens_as_it_may(self, door: Door) -> None:
        for limit in (0, 1, 2, 16):
            answer = await door.answer(self.prompts[0], max_tokens=limit)
            assert (len(answer.tokens), answer.finish_reason) == (limit, "length"), (
                f"max_tokens={limit}: {answer}"
            )

    @_played
    async def test_an_answer_that_may_end_by_itself_is_no_longer(self, door: Door) -> None:
        for token_ids in self.prompts:
            answer = await door.answer(token_ids, ignore_eos=False)
            assert len(answer.tokens) <= 16, answer
            assert answer.finish_reason == "stop" or len(answer.tokens) == 16, answer

    @_played
    async def test_a_greedy_answer_is_the_same_again_and_among_others(self, door: Door) -> None:
        alone = [await door.answer(token_ids) for token_ids in self.prompts]
        again = [await door.answer(token_ids) for token_ids in self.prompts]
        among = await asyncio.gather(*map(door.answer, self.prompts))
        _same(alone, again, "the same prompt was answered in two ways")
        _same(alone, among, "an answer depends on its neighbours")

    @_played
    async def test_many_at_once_are_each_answered_as_if_alone(self, door: Door) -> None:
        crowd: list[tuple[Sequence[int], dict[str, Any]]] = [
            (token_ids, {"max_tokens": 1 + (7 * i) % 16, "seed": i, "temperature": float(i % 3 > 0)})
            for i, token_ids in enumerate(islice(cycle(self.prompts), 24))
        ]
        alone = [await door.answer(token_ids, **sampling) for token_ids, sampling in crowd]
        among = await asyncio.gather(*(door.answer(token_ids, **sampling) for token_ids, sampling in crowd))
        _same(alone, among, "an answer depends on its neighbours")

    @_played
    async def test_a_seed_gives_the_same_answer_and_another_another(self, door: Door) -> None:
        seeds = [0, 1, 2, 3, 4, 5, 6, 7, 0]
        answers = [await door.answer(self.prompts[0], seed=seed, temperature=1.5) for seed in seeds]
        _same(answers[:1], answers[-1:], "one seed gave two answers")
        if self.draws:
            assert any(answer != answers[0] for answer in answers), "eight seeds gave the same answer"

    @_played
    async def test_a_stop_token_ends_the_answer_and_is_its_last(self, door: Door) -> None:
        for token_ids in self.prompts:
            tokens = (await door.answer(token_ids)).tokens
            stop = tokens[len(tokens) // 2]
            answer = await door.answer(token_ids, stop_token_ids=(stop,))
            assert answer.tokens == tokens[: tokens.index(stop) + 1], (
                f"stop token {stop} in {tokens}: {answer}"
            )
            assert (answer.finish_reason, answer.stop_token) == ("stop", stop), answer

    @_played
    async def test_no_stop_token_ends_an_answer_too_early(self, door: Door) -> None:
        first = (await door.answer(self.prompts[0])).tokens[0]
        answer = await door.answer(self.prompts[0], stop_token_ids=(first,), min_tokens=5)
        assert len(answer.tokens) >= 5, f"min_tokens=5: {answer}"

    @_played
    async def test_log_probabilities_are_whole_or_refused(self, door: Door) -> None:
        for token_ids in self.prompts:
            asked: dict[str, Any] = {"logprobs": 2, "prompt_logprobs": 2, "max_tokens": 5}
            if self.logprobs is not True and await door.refused(token_ids, **asked):
                continue
            assert self.logprobs is not False, "log-probabilities were to be refused with a RequestError"
            answer = await door.answer(token_ids, **asked)
            _check_logprobs(answer.logprobs, answer.tokens, greedy=True)
            assert answer.prompt_logprobs is not None, "the first step has no prompt_logprobs"
            first, *rest = answer.prompt_logprobs
            assert first is None, "before a prompt's first token there is nothing that it could follow"
            _check_logprobs(rest, token_ids[1:], greedy=False)
            assert (await door.answer(token_ids)).logprobs is None, "log-probabilities that nobody asked for"

    @_played
    async def test_a_constrained_answer_is_what_it_must_be(self, door: Door) -> None:
        if door.card.grammar is None:  # then no prompt has a constraint
            return
        tokenizer = Tokenizer.load(Path(door.card.tokenizer))
        expected = await door.answer(self.prompts[1])
        for text in ("yes", '{"city": "서울"}'):
            constrained = door.answer(
                self.prompts[0], constraint=ConstString(text), ignore_eos=False, max_tokens=64
            )
            answer, free = await asyncio.gather(constrained, door.answer(self.prompts[1]))
            written = answer.tokens if answer.stop_token is None else answer.tokens[:-1]
            said = tokenizer.decode(written, skip_special_tokens=True)
            assert said == text, f"it must be {text!r}, and is {said!r}"
            _same([expected], [free], "an answer depends on its neighbour's constraint")
        broken = JsonSchema('{"type": "nothing that there is"}')
        assert await door.refused(self.prompts[0], constraint=broken), "a schema without sense is not refused"

    @_played
    async def test_a_prompt_that_does_not_fit_is_refused(self, door: Door) -> None:
        length = door.card.max_model_len
        for wrong in ([], self._filled(length), self._filled(length + 1), [-1]):
            assert await door.refused(wrong), (
                f"a prompt of {len(wrong)} tokens, from {wrong[:1]}, is not refused"
            )

    @_played
    async def test_a_prompt_may_fill_the_context_up_to_one_token(self, door: Door) -> None:
        answer = await door.answer(self._filled(door.card.max_model_len - 1))
        assert (len(answer.tokens), answer.finish_reason) == (1, "length"), answer

    @_played
    async def test_closing_an_answer_frees_its_place(self, door: Door) -> None:
        expected = await door.answer(self.prompts[0])
        for _ in range(ATTEMPTS):
            async with AsyncExitStack() as stack:
                for token_ids in islice(cycle(self.prompts), 4):
                    stream = door.generate(token_ids, max_tokens=LONG)
                    await anext(await stack.enter_async_context(aclosing(stream)))
                counted = await door.in_flight()
            await door.idle(self.patience / 2)
            if counted:
                break
        else:
            raise AssertionError("its status counts no sequence while four are in flight")
        _same([expected], [await door.answer(self.prompts[0])], "after an abort the answer is another")

    @_played
    async def test_a_client_that_leaves_before_the_first_token_frees_its_place(self, door: Door) -> None:
        stream = door.generate(self.prompts[0], max_tokens=LONG)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await stream.aclose()
        await door.idle(self.patience / 2)

    def test_stop_ends_what_is_in_flight(self) -> None:
        for _ in range(ATTEMPTS):
            cut_short = self.session().play(self._stop)
            self.teardown_class()  # which stops it again
            if cut_short:
                return
        raise AssertionError("stop lets answers go on to their end; they must end with BackendUnavailable")

    def test_a_backend_that_never_started_can_be_stopped(self) -> None:
        self.teardown_class()

        async def stop() -> None:
            await within(self.patience, self.backend().stop())

        asyncio.run(stop())

    async def _stop(self, door: Door) -> bool:
        """Stop the backend amid answers; give whether one of them was cut short."""
        streams = [door.generate(each, max_tokens=LONG) for each in islice(cycle(self.prompts), 4)]
        await asyncio.gather(*map(anext, streams))
        await door.backend.stop()
        ends = await asyncio.gather(*map(_drained, streams), return_exceptions=True)
        for end in ends:
            assert end is None or isinstance(end, BackendUnavailable), (
                f"after stop, an answer ended with {end!r}"
            )
        for ask in (door.backend.status, lambda: door.answer(self.prompts[0])):
            try:
                await ask()
            except BackendUnavailable:
                continue
            raise AssertionError("after stop, it must raise BackendUnavailable")
        return any(ends)

    def _filled(self, length: int) -> list[int]:
        return [*islice(cycle(self.prompts[0]), length)]


async def _drained(stream: Any) -> None:
    async with aclosing(stream):
        async for _ in stream:
            pass


def _same(expected: Sequence[Answer], found: Sequence[Answer], complaint: str) -> None:
    for one, other in zip(expected, found, strict=True):
        assert one == other, f"{complaint}:\n  {one}\n  {other}"


def _check_logprobs(
    found: Sequence[TokenLogprob | None] | None, tokens: Sequence[int], *, greedy: bool
) -> None:
    assert found is not None, "the answer has no log-probabilities"
    assert [each and each.token_id for each in found] == [*tokens], "there must be one for each token"
    for each in found:
        assert each
        values = [value for _, value in each.top]
        assert len(values) == 2, f"two of the likeliest were asked for: {each}"
        assert values == sorted(values, reverse=True), f"the likeliest come first: {each}"
        assert max(each.logprob, *values) <= 1e-3, f"a log-probability is not above 0: {each}"
        assert sum(map(math.exp, values)) <= 1.001, f"the probabilities of the likeliest exceed 1: {each}"
        assert not greedy or each.logprob >= values[0] - 1e-3, f"a greedy token is the likeliest: {each}"
