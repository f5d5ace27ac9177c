"""Events as every API shows them: calls have ids, and what the request excludes is left out."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from fllm.events import Event, Finished, Reasoning, Text, ToolArguments, ToolStart
from fllm.pipeline.output_processor import SequenceOutput

_KEPT = frozenset((Text, Finished))


class FinalEvents:
    """Completes the events of all sequences of one request."""

    def __init__(
        self, new_call_id: Callable[[], str], *, parallel_tool_calls: bool = True, reasoning: bool = True
    ) -> None:
        """Create it. Without ``parallel_tool_calls``, only the first call of each sequence is kept."""
        self._new_call_id = new_call_id
        self._parallel = parallel_tool_calls
        self._reasoning = reasoning
        self._ids: set[tuple[int, str]] = set()
        """Ids of calls that the model generated, each with the index of its sequence."""

    def complete(self, output: SequenceOutput) -> SequenceOutput:
        """Return the output with its final events."""
        if _KEPT.issuperset(map(type, output.events)):  # nearly always
            return output
        events = [self._complete(output.index, event) for event in output.events if self._is_kept(event)]
        return replace(output, events=events)

    def _is_kept(self, event: Event) -> bool:
        if isinstance(event, Reasoning):
            return self._reasoning
        return self._parallel or not isinstance(event, ToolStart | ToolArguments) or event.index == 0

    def _complete(self, index: int, event: Event) -> Event:
        """Return the event; a call without an id, or with that of another call, gets a new one."""
        if not isinstance(event, ToolStart):
            return event
        if event.id is None or (index, event.id) in self._ids:
            return replace(event, id=self._new_call_id())
        self._ids.add((index, event.id))
        return event
