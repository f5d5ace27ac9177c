"""Items of the output while they are generated: each returns the events of its life."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from msgspec import UNSET, Struct

from fllm_dialects.responses.custom_input import CustomInput
from fllm_dialects.responses.ids import new_id
from fllm_dialects.responses.protocol.events import (
    ArgumentsDone,
    CallDelta,
    ContentPartEvent,
    CustomInputDone,
    OutputItemEvent,
    ReasoningDelta,
    ReasoningDone,
    StreamEvent,
    TextDelta,
    TextDone,
)
from fllm_dialects.responses.protocol.items import (
    CustomToolCallItem,
    FunctionCallItem,
    ItemStatus,
    Logprob,
    OutputItem,
    OutputMessage,
    OutputText,
    ReasoningItem,
    ReasoningText,
)
from fllm_dialects.responses.tools import CalledTool


class OpenItem(Protocol):
    """An item that has begun."""

    def item(self, status: ItemStatus) -> OutputItem:
        """Return the item as far as it is."""
        ...

    def begin(self) -> list[StreamEvent]:
        """Return the events that precede the first piece."""
        ...

    def end(self, status: ItemStatus) -> list[StreamEvent]:
        """Return the events that follow the last piece."""
        ...


class Place(Struct, frozen=True):
    """Index of an item in the output, and the numbers of the next events."""

    index: int
    numbers: Iterator[int]

    def added(self, item: OutputItem) -> OutputItemEvent:
        """Return the event of the beginning of an item."""
        return OutputItemEvent(
            type="response.output_item.added",
            sequence_number=next(self.numbers),
            output_index=self.index,
            item=item,
        )

    def done(self, item: OutputItem) -> OutputItemEvent:
        """Return the event of the end of an item."""
        return OutputItemEvent(
            type="response.output_item.done",
            sequence_number=next(self.numbers),
            output_index=self.index,
            item=item,
        )

    def part_added(self, item_id: str, part: OutputText | ReasoningText) -> ContentPartEvent:
        """Return the event of the beginning of an item's only part."""
        return ContentPartEvent(
            type="response.content_part.added",
            sequence_number=next(self.numbers),
            item_id=item_id,
            output_index=self.index,
            content_index=0,
            part=part,
        )

    def part_done(self, item_id: str, part: OutputText | ReasoningText) -> ContentPartEvent:
        """Return the event of the end of an item's only part."""
        return ContentPartEvent(
            type="response.content_part.done",
            sequence_number=next(self.numbers),
            item_id=item_id,
            output_index=self.index,
            content_index=0,
            part=part,
        )


class OpenMessage:
    """A message with one text."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._id = new_id("msg_")
        self._texts: list[str] = []
        self._logprobs: list[Logprob] = []

    def _part(self) -> OutputText:
        return OutputText(text="".join(self._texts), logprobs=self._logprobs)

    def item(self, status: ItemStatus) -> OutputMessage:
        """Return the message as far as it is."""
        content = [] if status == "in_progress" else [self._part()]
        return OutputMessage(id=self._id, status=status, content=content)

    def begin(self) -> list[StreamEvent]:
        """Return the events of the beginning of the message and of its text."""
        return [
            self._place.added(self.item("in_progress")),
            self._place.part_added(self._id, OutputText(text="")),
        ]

    def add(self, text: str, logprobs: list[Logprob]) -> list[StreamEvent]:
        """Return the event of the next piece of the text."""
        self._texts.append(text)
        self._logprobs += logprobs
        return [
            TextDelta(
                sequence_number=next(self._place.numbers),
                item_id=self._id,
                output_index=self._place.index,
                content_index=0,
                delta=text,
                logprobs=logprobs,
            )
        ]

    def add_logprobs(self, logprobs: list[Logprob]) -> None:
        """Add those of tokens without text, such as the last one."""
        self._logprobs += logprobs

    def end(self, status: ItemStatus) -> list[StreamEvent]:
        """Return the events of the end of the text and of the message."""
        part = self._part()
        done = TextDone(
            sequence_number=next(self._place.numbers),
            item_id=self._id,
            output_index=self._place.index,
            content_index=0,
            text=part.text,
            logprobs=part.logprobs,
        )
        return [done, self._place.part_done(self._id, part), self._place.done(self.item(status))]


class OpenReasoning:
    """Reasoning with one text."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._id = new_id("rs_")
        self._texts: list[str] = []

    def item(self, status: ItemStatus) -> ReasoningItem:
        """Return the reasoning as far as it is."""
        content = [] if status == "in_progress" else [ReasoningText("".join(self._texts))]
        return ReasoningItem(id=self._id, status=status, content=content)

    def begin(self) -> list[StreamEvent]:
        """Return the events of the beginning of the item and of its text."""
        return [
            self._place.added(self.item("in_progress")),
            self._place.part_added(self._id, ReasoningText("")),
        ]

    def add(self, text: str) -> list[StreamEvent]:
        """Return the event of the next piece of the reasoning."""
        self._texts.append(text)
        return [
            ReasoningDelta(
                sequence_number=next(self._place.numbers),
                item_id=self._id,
                output_index=self._place.index,
                content_index=0,
                delta=text,
            )
        ]

    def end(self, status: ItemStatus) -> list[StreamEvent]:
        """Return the events of the end of the text and of the item."""
        part = ReasoningText("".join(self._texts))
        done = ReasoningDone(
            sequence_number=next(self._place.numbers),
            item_id=self._id,
            output_index=self._place.index,
            content_index=0,
            text=part.text,
        )
        return [done, self._place.part_done(self._id, part), self._place.done(self.item(status))]


class OpenFunctionCall:
    """A call of a function."""

    def __init__(self, place: Place, call_id: str, tool: CalledTool) -> None:
        self._place = place
        self._id = new_id("fc_")
        self._call_id = call_id
        self._tool = tool
        self._pieces: list[str] = []

    def item(self, status: ItemStatus) -> FunctionCallItem:
        """Return the call as far as it is."""
        return FunctionCallItem(
            id=self._id,
            status=status,
            call_id=self._call_id,
            name=self._tool.name,
            namespace=self._tool.namespace or UNSET,
            arguments="".join(self._pieces),
        )

    def begin(self) -> list[StreamEvent]:
        """Return the event of the beginning of the call."""
        return [self._place.added(self.item("in_progress"))]

    def add(self, piece: str) -> list[StreamEvent]:
        """Return the event of the next piece of the arguments."""
        self._pieces.append(piece)
        return [
            CallDelta(
                type="response.function_call_arguments.delta",
                sequence_number=next(self._place.numbers),
                item_id=self._id,
                output_index=self._place.index,
                delta=piece,
            )
        ]

    def end(self, status: ItemStatus) -> list[StreamEvent]:
        """Return the events of the end of the arguments and of the call."""
        done = ArgumentsDone(
            sequence_number=next(self._place.numbers),
            item_id=self._id,
            output_index=self._place.index,
            name=self._tool.name,
            arguments="".join(self._pieces),
        )
        return [done, self._place.done(self.item(status))]


class OpenCustomCall:
    """A call of a custom tool, whose input is one argument of a function."""

    def __init__(self, place: Place, call_id: str, tool: CalledTool) -> None:
        self._place = place
        self._id = new_id("ctc_")
        self._call_id = call_id
        self._tool = tool
        self._input = CustomInput()

    def item(self, status: ItemStatus) -> CustomToolCallItem:
        """Return the call as far as it is."""
        return CustomToolCallItem(
            id=self._id,
            status=status,
            call_id=self._call_id,
            name=self._tool.name,
            namespace=self._tool.namespace or UNSET,
            input=self._input.text,
        )

    def begin(self) -> list[StreamEvent]:
        """Return the event of the beginning of the call."""
        return [self._place.added(self.item("in_progress"))]

    def add(self, piece: str) -> list[StreamEvent]:
        """Return the event of the next piece of the input, if the piece of the arguments has some of it."""
        return self._delta(self._input.feed(piece))

    def end(self, status: ItemStatus) -> list[StreamEvent]:
        """Return the events of what is left of the input, of its end and of that of the call."""
        rest = self._delta(self._input.finish())
        done = CustomInputDone(
            sequence_number=next(self._place.numbers),
            item_id=self._id,
            output_index=self._place.index,
            input=self._input.text,
        )
        return [*rest, done, self._place.done(self.item(status))]

    def _delta(self, text: str) -> list[StreamEvent]:
        if not text:
            return []
        return [
            CallDelta(
                type="response.custom_tool_call_input.delta",
                sequence_number=next(self._place.numbers),
                item_id=self._id,
                output_index=self._place.index,
                delta=text,
            )
        ]
