"""Collect an answer from its events, and show it while it is generated."""

from __future__ import annotations

import time
from typing import Literal

from fllm.events import Event, Finished, Reasoning, Text, ToolArguments, ToolStart
from fllm_terminal.conversation import Answer, ToolCall

Kind = Literal["text", "reasoning", "call"]


class AnswerView:
    """Base class: collects the events of one answer in ``answer``. Subclasses show the text."""

    def __init__(self) -> None:
        self.answer = Answer()
        self.finished: Finished | None = None
        """The last event, if the answer is complete."""
        self._started_at = time.monotonic()
        self._first_at: float | None = None
        self._last_at = self._started_at

    def show(self, event: Event) -> None:
        """Show an event."""
        if not isinstance(event, Finished):
            self._last_at = time.monotonic()
            self._first_at = self._first_at or self._last_at
        match event:
            case Text(text):
                self.answer.text += text
                self.write(text, "text")
            case Reasoning(text):
                self.answer.reasoning += text
                self.write(text, "reasoning")
            case ToolStart(_, name, call_id):
                self.end_part()
                self.answer.calls.append(ToolCall(call_id or f"call_{len(self.answer.calls)}", name))
                self.write(f"{name} ", "call")
            case ToolArguments(_, text):
                self.answer.calls[-1].arguments += text
                self.write(text, "call")
            case Finished():
                self.finished = event

    def write(self, text: str, kind: Kind) -> None:
        """Show the next piece of a part; a piece of another kind begins a new part."""
        raise NotImplementedError

    def end_part(self) -> None:
        """Show that a part is complete. It does nothing if none has begun."""
        raise NotImplementedError

    def statistics(self) -> str:
        """Return tokens and speed of a complete answer as one line; else an empty text."""
        if self.finished is None or self._first_at is None:
            return ""
        usage, seconds = self.finished.usage, self._last_at - self._first_at
        parts = [
            f"prompt of {usage.prompt_tokens} tokens",
            f"first token after {self._first_at - self._started_at:.2f} s",
            f"{usage.completion_tokens} tokens",
        ]
        if usage.completion_tokens > 1 and seconds > 0:
            parts.append(f"{(usage.completion_tokens - 1) / seconds:.1f} tokens/s")
        if self.finished.reason == "length":
            parts.append("ended by the maximum of tokens")
        return ", ".join(parts)
