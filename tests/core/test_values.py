from __future__ import annotations

from fllm.values import EngineOutput, TokenLogprob, merge_outputs


def test_one_step_stays_itself() -> None:
    step = EngineOutput(token_ids=[1], logprobs=[], finish_reason="stop", stop_token=1)
    assert merge_outputs([step]) is step


def test_the_first_step_says_how_it_began_and_the_last_how_it_ended() -> None:
    steps = [
        EngineOutput(token_ids=[1], cached_tokens=3, queue_time=0.5, prompt_logprobs=[None]),
        EngineOutput(token_ids=[2, 3]),
        EngineOutput(token_ids=[4], finish_reason="stop", stop_token=4),
    ]
    assert merge_outputs(steps) == EngineOutput(
        token_ids=[1, 2, 3, 4],
        finish_reason="stop",
        stop_token=4,
        cached_tokens=3,
        queue_time=0.5,
        prompt_logprobs=[None],
    )


def test_cached_tokens_count_whenever_they_are_known() -> None:
    assert (
        merge_outputs(
            [EngineOutput(token_ids=[1]), EngineOutput(cached_tokens=3, finish_reason="stop")]
        ).cached_tokens
        == 3
    )


def test_logprobs_stay_with_their_tokens() -> None:
    steps = [
        EngineOutput(),
        EngineOutput(token_ids=[1], logprobs=[TokenLogprob(1, -1.0)]),
        EngineOutput(token_ids=[2, 3], logprobs=[TokenLogprob(2, -2.0), TokenLogprob(3, -3.0)]),
    ]
    whole = merge_outputs(steps)
    assert [logprob.token_id for logprob in whole.logprobs or ()] == whole.token_ids == [1, 2, 3]


def test_counts_of_allowed_tokens_stay_with_their_tokens() -> None:
    steps = [EngineOutput(token_ids=[1], allowed=[7]), EngineOutput(token_ids=[2, 3], allowed=[1, 4])]
    assert merge_outputs(steps).allowed == [7, 1, 4]
    assert merge_outputs([EngineOutput(token_ids=[1]), EngineOutput(token_ids=[2])]).allowed is None


def test_merged_counts_stay_with_their_tokens() -> None:
    steps = [
        EngineOutput(token_ids=[1, 2]),
        EngineOutput(token_ids=[3, 4], allowed=[1]),
        EngineOutput(token_ids=[5], allowed=[7, 8]),  # of an engine with an error
    ]
    assert merge_outputs(steps).allowed == [0, 0, 1, 0, 7]
    assert merge_outputs(steps[:1] * 2).allowed is None
