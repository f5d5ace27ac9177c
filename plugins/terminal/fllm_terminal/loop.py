"""Read messages and commands, and show the answers, until the user leaves."""

from __future__ import annotations

import sys
from contextlib import suppress

from rich.console import Console

from fllm.errors import UserError
from fllm_terminal.answer_view import AnswerView
from fllm_terminal.commands import find_command
from fllm_terminal.conversation import ToolCall
from fllm_terminal.plain_view import PlainView
from fllm_terminal.rich_view import RichView
from fllm_terminal.session import Session
from fllm_terminal.text import safe

BLOCK = '"""'
"""Begins and ends a message of several lines."""
LEAVES = "\n/exit or Ctrl-D leaves"
SKIPS = "/skip or Ctrl-D leaves the calls unanswered"


def chat_until_end(session: Session, console: Console) -> None:
    """Chat until the end of the input, or `/exit`."""
    with suppress(ImportError):
        import readline  # noqa: F401  (input() edits lines and has a history then)
    console.print(f"[bold]{session.conversation.settings.model}[/]  ·  /help lists the commands", style="dim")
    while (text := _read_message(console)) is not None:
        try:
            if not _process(text, session, console):
                return
        except UserError as error:
            _print_error(console, error)
        except KeyboardInterrupt:  # while something is printed
            console.print(LEAVES, style="dim")


def _process(text: str, session: Session, console: Console) -> bool:
    """Run a command or send a message. Return whether the chat continues."""
    if not text.strip():
        return True
    if not text.startswith("/"):
        session.conversation.ask(text)
        _answer(session, console)
        return True
    command, argument = find_command(text)
    if not command.ends and command.run(session, console, argument):
        _answer(session, console)
    return not command.ends


def _read_message(console: Console) -> str | None:
    """Return the next message or command, or ``None`` at the end of the input."""
    text = _read_line(console, "> ")
    if text is None or not text.startswith(BLOCK):
        return text
    lines = [text.removeprefix(BLOCK)]
    while not lines[-1].rstrip().endswith(BLOCK) and (line := _read_line(console, ". ")) is not None:
        lines.append(line)
    return "\n".join(lines).rstrip().removesuffix(BLOCK).strip("\n")


def _read_line(console: Console, prompt: str, ending: str = LEAVES) -> str | None:
    """Return a line, or ``None`` at the end of the input. Ctrl-C prints ``ending``: how to end it."""
    while True:
        try:
            return input(prompt if sys.stdin.isatty() else "")
        except EOFError:
            return None
        except KeyboardInterrupt:
            console.print(ending, style="dim")


def _answer(session: Session, console: Console) -> None:
    """Show the answer, and those to the results of its tool calls. An error is shown; the chat goes on."""
    while True:
        view = _new_view(console)
        try:
            session.answer(view)
        except UserError as error:
            _print_error(console, error)
            console.print("/retry asks again, /undo takes your message back", style="dim")
            return
        if view.finished is None:
            console.print("ended by you; /retry asks again", style="dim")
            return
        if console.is_terminal:
            console.print(view.statistics(), style="dim")
        if not view.answer.calls or not _read_results(session, console, view.answer.calls):
            return


def _new_view(console: Console) -> AnswerView:
    return RichView(console) if console.is_terminal else PlainView(Console(stderr=True, highlight=False))


def _read_results(session: Session, console: Console, calls: list[ToolCall]) -> bool:
    """Ask for the result of each call. Return whether all have one."""
    console.print(f"The model calls tools. Type what each returns; {SKIPS}.", style="dim")
    for call in calls:
        result = _read_line(console, f"{safe(call.name)} = ", f"\n{SKIPS}")
        if result is None or result.strip() == "/skip":
            session.conversation.unanswer()
            console.print("the calls are not part of the conversation", style="dim")
            return False
        session.conversation.add_result(call, result)
    return True


def _print_error(console: Console, error: UserError) -> None:
    console.print(safe(error.message), style="red", markup=False)
