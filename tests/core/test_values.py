from __future__ import annotations

from fllm.values import Step, TokenLogprob, joined


def test_one_step_stays_itself() -> None:
    step = Step(token_ids=[1], logprobs=[], finish="stop", stop_token=1)
    assert joined([step]) is step


def test_the_first_step_says_how_it_began_and_the_last_how_it_ended() -> None:
    steps = [
        Step(token_ids=[1], cached_tokens=3, queued=0.5, prompt_logprobs=[None]),
        Step(token_ids=[2, 3]),
        Step(token_ids=[4], finish="stop", stop_token=4),
    ]
    assert joined(steps) == Step(
        token_ids=[1, 2, 3, 4],
        finish="stop",
        stop_token=4,
        cached_tokens=3,
        queued=0.5,
        prompt_logprobs=[None],
    )


def test_cached_tokens_count_whenever_they_are_known() -> None:
    assert joined([Step(token_ids=[1]), Step(cached_tokens=3, finish="stop")]).cached_tokens == 3


def test_logprobs_stay_with_their_tokens() -> None:
    steps = [
        Step(),
        Step(token_ids=[1], logprobs=[TokenLogprob(1, -1.0)]),
        Step(token_ids=[2, 3], logprobs=[TokenLogprob(2, -2.0), TokenLogprob(3, -3.0)]),
    ]
    whole = joined(steps)
    assert [logprob.token_id for logprob in whole.logprobs or ()] == whole.token_ids == [1, 2, 3]
