"""Show an answer as plain text that can be piped."""

from __future__ import annotations

import sys

from rich.console import Console

from fllm_terminal.answer_view import AnswerView, Kind
from fllm_terminal.text import safe


class PlainView(AnswerView):
    """Prints text and calls on stdout as they arrive, and reasoning on stderr if that is a terminal.

    What is piped is exactly the answer; control characters are left out only on a terminal.
    """

    def __init__(self, errors: Console) -> None:
        super().__init__()
        self._errors = errors
        self._kind: Kind | None = None
        self._last = ""

    def write(self, text: str, kind: Kind) -> None:
        """Print the next piece."""
        if kind != self._kind:
            self.end_part()
        self._kind, self._last = kind, text or self._last
        if kind != "reasoning":
            sys.stdout.write(safe(text) if sys.stdout.isatty() else text)
            sys.stdout.flush()
        elif self._errors.is_terminal:
            self._errors.print(safe(text), style="dim italic", end="", markup=False)

    def end_part(self) -> None:
        """End the line."""
        if self._kind == "reasoning":
            if self._errors.is_terminal:
                self._errors.print()
        elif self._kind and not self._last.endswith("\n"):
            print()  # noqa: T201
        self._kind = None
