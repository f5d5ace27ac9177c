from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from fllm.inbox import Inbox, joined
from fllm.values import Step, TokenLogprob


def read(work: Callable[[Inbox], None], count: int) -> list[Step]:
    """What a reader gets that comes after the work."""

    async def go() -> list[Step]:
        inbox = Inbox()
        work(inbox)
        return [await inbox.get() for _ in range(count)]

    return asyncio.run(go())


def test_a_reader_that_waits_gets_each_step_as_it_is() -> None:
    steps = [Step(token_ids=[1]), Step(token_ids=[2], finish="stop", stop_token=2)]

    async def go() -> list[Step]:
        inbox = Inbox()
        got = []
        for step in steps:
            waiting = asyncio.create_task(inbox.get())
            await asyncio.sleep(0)
            inbox.put(step)
            got.append(await waiting)
        return got

    assert asyncio.run(go()) == steps


def test_steps_that_wait_together_leave_as_one() -> None:
    def work(inbox: Inbox) -> None:
        inbox.put(Step(token_ids=[1], cached_tokens=3, queued=0.5, prompt_logprobs=[None]))
        inbox.put(Step(token_ids=[2, 3]))
        inbox.put(Step(token_ids=[4], finish="stop", stop_token=4))

    [step] = read(work, 1)
    assert step == Step(
        token_ids=[1, 2, 3, 4],
        finish="stop",
        stop_token=4,
        cached_tokens=3,
        queued=0.5,
        prompt_logprobs=[None],
    )


def test_logprobs_stay_with_their_tokens() -> None:
    steps = [
        Step(),
        Step(token_ids=[1], logprobs=[TokenLogprob(1, -1.0)]),
        Step(token_ids=[2, 3], logprobs=[TokenLogprob(2, -2.0), TokenLogprob(3, -3.0)]),
    ]
    whole = joined(steps)
    assert [logprob.token_id for logprob in whole.logprobs or ()] == whole.token_ids == [1, 2, 3]


def test_a_failure_comes_after_the_steps_before_it_and_stays() -> None:
    async def go() -> None:
        inbox = Inbox()
        inbox.put(Step(token_ids=[1]))
        inbox.fail(ValueError("over"))
        assert (await inbox.get()).token_ids == [1]
        for _ in range(2):
            with pytest.raises(ValueError, match="over"):
                await inbox.get()

    asyncio.run(go())
