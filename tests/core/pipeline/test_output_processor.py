from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models

from fllm import (
    EngineOutput,
    Finished,
    ParserEvent,
    Reasoning,
    SamplingParams,
    Text,
    TokenLogprob,
    ToolArguments,
    ToolStart,
)
from fllm.events import merge_events
from fllm.pipeline.output_processor import OutputProcessor, SequenceOutput
from fllm.tokenizer import Tokenizer

WORDS = ["<eos>", "a", "b", "Ġc", "<t", "</t>", "[f]", "ðŁ", "ĺ", "Ģ", "x</t>y"]
EOS = 0


def tokenizer() -> Tokenizer:
    inner = tokenizers.Tokenizer(models.BPE({word: i for i, word in enumerate(WORDS)}, []))
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<eos>"])
    return Tokenizer(inner, {"eos_token": "<eos>"})


class Thinker:
    """A reasoning parser; reasoning ends at ``</t>``."""

    def __init__(self) -> None:
        self.pending = ""
        self.done = False

    def feed(self, text: str) -> Iterable[ParserEvent]:
        if self.done:
            return [Text(text)]
        self.pending += text
        before, tag, after = self.pending.partition("</t>")
        if tag:
            self.done = True
            return [Reasoning(before), Text(after)]
        keep = len("<t") if before.endswith("<t") else 0
        self.pending = before[len(before) - keep :]
        return [Reasoning(before[: len(before) - keep])]

    def finish(self) -> Iterable[ParserEvent]:
        return [] if self.done else [Reasoning(self.pending)]


class Caller:
    """A tool-call parser; ``[f]`` is a call."""

    def feed(self, text: str) -> Iterable[ParserEvent]:
        return [ToolStart(0, "f"), ToolArguments(0, "{}")] if text == "[f]" else [Text(text)]

    def finish(self) -> Iterable[ParserEvent]:
        return []


def processor(**options: Any) -> OutputProcessor:
    options.setdefault("sampling", SamplingParams(max_tokens=100))
    return OutputProcessor(index=0, tokenizer=tokenizer(), prompt_tokens=5, **options)


def run(processor: OutputProcessor, ids: list[int], finish: Any = "length") -> list[SequenceOutput]:
    outputs = []
    for i, token_id in enumerate(ids):
        last = i == len(ids) - 1
        stop = token_id if last and finish == "stop" else None
        outputs.append(
            processor.feed(
                EngineOutput(token_ids=[token_id], finish_reason=finish if last else None, stop_token=stop)
            )
        )
        if processor.finished:
            break
    return outputs


def events(outputs: list[SequenceOutput]) -> list[Any]:
    return merge_events(event for output in outputs for event in output.events)


def ids(*words: str) -> list[int]:
    return [WORDS.index(word) for word in words]


def test_text_is_followed_by_one_finished_event() -> None:
    *text, end = events(run(processor(), ids("a", "Ġc", "<eos>"), "stop"))
    assert text == [Text("a c")]
    assert end == Finished(reason="stop", usage=end.usage)
    assert (end.usage.prompt_tokens, end.usage.completion_tokens) == (5, 3)


def test_a_stop_token_of_the_request_is_the_stop_reason_and_is_hidden() -> None:
    sampling = SamplingParams(max_tokens=9, stop_token_ids=(2,))
    assert events(run(processor(sampling=sampling), ids("a", "b"), "stop"))[0] == Text("a")
    end = events(run(processor(sampling=sampling), ids("a", "b"), "stop"))[-1]
    assert end.stop_reason == 2
    shown = processor(sampling=sampling, include_stop=True)
    assert events(run(shown, ids("a", "b"), "stop"))[0] == Text("ab")


def test_a_stop_string_ends_the_sequence_in_the_middle_of_a_step() -> None:
    stopped = processor(stop=("b c",))
    output = stopped.feed(EngineOutput(token_ids=ids("a", "b", "Ġc", "a")))
    assert stopped.finished
    assert output.events[0] == Text("a")
    assert output.events[-1] == Finished(reason="stop", stop_reason="b c", usage=output.usage)
    assert len(output.tokens) == output.usage.completion_tokens == 3


def test_stop_strings_are_ignored_until_min_tokens() -> None:
    delayed = processor(stop=("a",), sampling=SamplingParams(max_tokens=9, min_tokens=2))
    assert events(run(delayed, ids("a", "b", "b", "a", "b")))[0] == Text("abb")


def test_reasoning_tokens_are_those_that_contributed_reasoning() -> None:
    words = ["a", "<t", "b", "ðŁ", "ĺ", "Ģ", "</t>", "a", "<eos>"]
    *parts, end = events(run(processor(reasoning_parser=Thinker()), ids(*words), "stop"))
    assert parts == [Reasoning("a<tb😀"), Text("a")]
    assert end.usage.reasoning_tokens == 6


def test_a_token_with_reasoning_and_text_counts_as_reasoning() -> None:
    end = events(run(processor(reasoning_parser=Thinker()), ids("a", "x</t>y", "b")))[-1]
    assert end.usage.reasoning_tokens == 2


@pytest.mark.parametrize(("finish", "reason"), [("stop", "tool_calls"), ("length", "length")])
def test_a_call_changes_the_finish_reason_only_if_the_model_stopped(finish: str, reason: str) -> None:
    words = ["a", "</t>", "[f]", "<eos>"]
    *parts, end = events(
        run(processor(reasoning_parser=Thinker(), tool_parser=Caller()), ids(*words), finish)
    )
    assert parts == [Reasoning("a"), ToolStart(0, "f"), ToolArguments(0, "{}")]
    assert end.reason == reason


def test_offsets_and_logprobs_belong_to_their_tokens() -> None:
    logprobs = [TokenLogprob(i, -float(i)) for i in (1, 3, 1)]
    output = processor().feed(EngineOutput(token_ids=[1, 3, 1], logprobs=logprobs, finish_reason="length"))
    assert [token.text_offset for token in output.tokens] == [0, 1, 3]
    assert [token.logprob for token in output.tokens] == logprobs


@given(st.lists(st.sampled_from(range(1, len(WORDS))), max_size=30), st.integers(1, 5), st.booleans())
def test_how_tokens_are_grouped_into_steps_changes_nothing(tokens: list[int], size: int, stops: bool) -> None:
    def outcome(size: int) -> tuple[list[Any], int]:
        stages = processor(reasoning_parser=Thinker(), stop=("b c",) if stops else ())
        outputs = []
        for start in range(0, len(tokens), size):
            last = start + size >= len(tokens)
            output = EngineOutput(
                token_ids=tokens[start : start + size], finish_reason="length" if last else None
            )
            outputs.append(stages.feed(output))
            if stages.finished:
                break
        return events(outputs), sum(len(output.tokens) for output in outputs)

    assert outcome(size) == outcome(1)


def test_each_token_has_the_number_of_tokens_that_could_have_been_there() -> None:
    processor = OutputProcessor(
        index=0, tokenizer=tokenizer(), sampling=SamplingParams(max_tokens=9), prompt_tokens=1, stop=("b",)
    )
    first = processor.feed(EngineOutput(token_ids=[1], allowed=[5]))
    last = processor.feed(EngineOutput(token_ids=[2, 1], allowed=[1, 2]))  # the stop text drops a token
    assert [token.allowed for output in (first, last) for token in output.tokens] == [5, 1]


def test_a_token_without_restriction_has_no_number_of_allowed_ones() -> None:
    processor = OutputProcessor(
        index=0, tokenizer=tokenizer(), sampling=SamplingParams(max_tokens=9), prompt_tokens=1
    )
    output = processor.feed(EngineOutput(token_ids=[1, 2, 1], allowed=[0, -3, 2]))
    assert [token.allowed for token in output.tokens] == [None, None, 2]
