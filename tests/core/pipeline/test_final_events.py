"""Events as every API shows them."""

from __future__ import annotations

from itertools import count

from fllm.events import Event, Finished, Reasoning, Text, ToolArguments, ToolStart
from fllm.pipeline.final_events import FinalEvents
from fllm.pipeline.output_processor import SequenceOutput
from fllm.values import Usage

END = Finished(reason="stop", usage=Usage())


def completed(*outputs: list[Event], index: int = 0, **options: bool) -> list[Event]:
    ids = map("new{}".format, count())
    final = FinalEvents(lambda: next(ids), **options)
    made = [final.complete(SequenceOutput(index=index, events=events, tokens=[])) for events in outputs]
    return [event for output in made for event in output.events]


def test_text_is_not_copied() -> None:
    output = SequenceOutput(index=0, events=[Text("a"), END], tokens=[])
    assert FinalEvents(str).complete(output) is output


def test_every_call_has_an_id_of_its_own() -> None:
    calls = [ToolStart(0, "f", "a"), ToolStart(1, "f", "a"), ToolStart(2, "f")]
    made = [event.id for event in completed([*calls]) if isinstance(event, ToolStart)]
    assert made == ["a", "new0", "new1"]


def test_sequences_may_have_the_same_id() -> None:
    final = FinalEvents(lambda: "new")
    for index in range(2):
        output = final.complete(SequenceOutput(index=index, events=[ToolStart(0, "f", "a")], tokens=[]))
        assert output.events == [ToolStart(0, "f", "a")]


def test_what_the_request_excludes_is_left_out() -> None:
    events: list[Event] = [
        *(Reasoning("r"), Text("t"), ToolStart(0, "f", "a"), ToolArguments(0, "{}")),
        *(ToolStart(1, "g", "b"), ToolArguments(1, "{}"), END),
    ]
    assert completed(events, reasoning=False, parallel_tool_calls=False) == [
        *(Text("t"), ToolStart(0, "f", "a"), ToolArguments(0, "{}"), END),
    ]
    assert completed(events) == events
