"""Show an answer as Markdown in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

from fllm_terminal.answer_view import AnswerView, Kind
from fllm_terminal.text import safe

_STYLES: dict[Kind, str] = {"text": "", "reasoning": "dim italic", "call": "cyan"}


class RichView(AnswerView):
    """Prints finished blocks of Markdown for good. The block that grows is plain text, drawn as it grows."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._kind: Kind = "text"
        self._block = ""
        self._live: Live | None = None

    def write(self, text: str, kind: Kind) -> None:
        """Draw the growing block again, and print what cannot change any more."""
        if kind != self._kind:
            self.end_part()
        self._kind = kind
        self._block += safe(text)
        if kind == "text":
            self._print_finished_blocks()
        if self._live is None:
            self._live = Live(console=self._console, transient=True, refresh_per_second=12)
            self._live.start()
        self._live.update(self._tail())

    def end_part(self) -> None:
        """Print the block that grew until now."""
        if self._live:
            self._live.update("")
            self._live.stop()
            self._live = None
        if self._block.strip():
            self._print(self._block)
        self._block = ""

    def _print_finished_blocks(self) -> None:
        """Print what ends with an empty line outside of a code block."""
        end = self._block.rfind("\n\n")
        while end > 0 and self._block.count("```", 0, end) % 2:
            end = self._block.rfind("\n\n", 0, end)
        if end > 0:
            self._print(self._block[:end])
            self._block = self._block[end:].lstrip("\n")

    def _print(self, block: str) -> None:
        style = _STYLES[self._kind]
        self._console.print(Text(block.strip("\n"), style) if style else Markdown(block, hyperlinks=False))
        self._console.print()

    def _tail(self) -> Text:
        """Return the end of the growing block: as many lines as fit the screen."""
        console = self._console
        height = max(console.height - 2, 1)
        # No more than can be seen is wrapped: the block may be a file of thousands of lines.
        end = "\n".join(self._block[-height * console.width :].split("\n")[-height:])
        lines = Text(end, _STYLES[self._kind]).wrap(console, console.width)
        return Text("\n").join(lines[-height:])
