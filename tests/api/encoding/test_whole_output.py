"""All outputs of one sequence, merged."""

from __future__ import annotations

import pytest

from fllm.events import Event, Finished, Reasoning, Text
from fllm.pipeline.output_processor import OutputToken, SequenceOutput
from fllm.values import TokenLogprob, Usage
from fllm_api.encoding import whole_output
from fllm_api.encoding.whole_output import WholeOutput


def output(*events: Event, count: int = 1, logprob: TokenLogprob | None = None) -> SequenceOutput:
    return SequenceOutput(
        index=3,
        events=[*events],
        tokens=[OutputToken(1, 0, logprob)],
        usage=Usage(prompt_tokens=1, completion_tokens=count),
    )


@pytest.mark.parametrize("merged_after", [0, 2, 100])
def test_texts_are_joined_and_the_last_usage_counts(
    merged_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_output, "MAX_EVENTS", merged_after)
    finished = Finished(reason="stop", usage=Usage())
    whole = WholeOutput(output(Reasoning("a")))
    for count, event in enumerate([Reasoning("b"), Text("c"), Text("d"), Text("e"), finished], start=2):
        whole.add(output(event, count=count))
    merged = whole.merged()
    assert merged.events == [Reasoning("ab"), Text("cde"), finished]
    assert (merged.index, merged.usage.completion_tokens) == (3, 6)
    assert merged.tokens == []


def test_tokens_with_log_probabilities_are_kept() -> None:
    logprob = TokenLogprob(1, -0.5)
    first = output(Text("a"), logprob=logprob)
    whole = WholeOutput(first)
    whole.add(output(Text("b"), logprob=logprob))
    assert whole.merged().tokens == [OutputToken(1, 0, logprob)] * 2
    assert len(first.tokens) == 1
