"""Answers in a terminal: what remains on the screen."""

from __future__ import annotations

import io

import pytest
import rich.text
from rich.console import Console

from fllm.events import Event, Finished, Reasoning, Text, ToolArguments, ToolStart
from fllm.values import Usage
from fllm_terminal.rich_view import RichView

ANSWER = "# Title\n\nSome *words*.\n\n```python\nx = 1\n\ny = 2\n```\n\n- one\n- two\n"


def shown(*events: Event) -> str:
    """Return the screen after these events, without the block that was drawn again and again."""
    console = Console(
        file=io.StringIO(), force_terminal=True, width=40, color_system=None, legacy_windows=False
    )
    view = RichView(console)
    with console.capture() as capture:
        for event in events:
            view.show(event)
        view.end_part()
    return capture.get()


def test_a_code_block_with_an_empty_line_stays_whole() -> None:
    text = shown(*[Text(piece) for piece in ANSWER])
    code = text[text.rindex("x = 1") :]
    assert code.index("y = 2") < code.index("one")
    assert text.count("words.") >= 1
    assert "```" not in code


def test_parts_are_separate() -> None:
    events = [Reasoning("Think."), Text("Say."), ToolStart(0, "f", "c"), ToolArguments(0, '{"a": 1}')]
    view_text = shown(*events, Finished(reason="tool_calls", usage=Usage()))
    positions = [view_text.rindex(part) for part in ("Think.", "Say.", 'f {"a": 1}')]
    assert positions == sorted(positions)


def test_a_piece_of_a_long_block_costs_a_screen_and_not_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    wrap = rich.text.Text.wrap

    def counted(self: rich.text.Text, console: Console, width: int) -> rich.text.Lines:
        lengths.append(len(self.plain))
        return wrap(self, console, width)

    view = RichView(Console(file=io.StringIO(), force_terminal=True, width=40, height=10))
    view.show(Text("```\n" + "a line of a file\n" * 1000))
    monkeypatch.setattr(rich.text.Text, "wrap", counted)
    view.show(Text("the last line"))
    monkeypatch.undo()
    view.end_part()
    assert 0 < max(lengths) <= 40 * 10
