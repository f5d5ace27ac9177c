"""The command ``furiosa-llm run``."""

from __future__ import annotations

import sys
from typing import Any

import rich_click as click

from fllm_terminal.options import chat_options, read_options


@click.command("run", context_settings={"show_default": True})
@click.argument("prompt", required=False)
@click.option(
    "--model",
    "-m",
    metavar="MODEL|URL",
    help="A model, or the address of a running server; else the embedded model.",
)
@click.option("--stats", is_flag=True, help="Print tokens and speed on stderr.")
@chat_options
def run(prompt: str | None, model: str | None, stats: bool, **options: Any) -> None:
    """Print the answer to one PROMPT as it is generated.

    What is piped in follows the prompt: `furiosa-llm run "Summarize this:" < notes.txt`. Reasoning goes to
    stderr, if that is a terminal. A tool call is printed as a line: its name, and its arguments as JSON.
    """
    from rich.console import Console

    from fllm_terminal.plain_view import PlainView
    from fllm_terminal.session import open_session
    from fllm_terminal.text import accept_all_text

    accept_all_text()
    read = read_options(**options)
    piped = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read()
    text = "\n\n".join(part for part in (prompt, piped.strip()) if part)
    if not text:
        raise click.UsageError("there is no prompt: give one, or pipe a text in")
    errors = Console(stderr=True, highlight=False)
    with open_session(model, read) as session:
        session.conversation.ask(text)
        view = PlainView(errors)
        session.answer(view)
    if stats:
        errors.print(view.statistics(), style="dim")
    if view.finished is None:
        raise click.Abort  # Ctrl-C
