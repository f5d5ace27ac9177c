"""The command ``furiosa-llm chat``."""

from __future__ import annotations

from typing import Any

import rich_click as click

from fllm_terminal.options import chat_options, read_options


@click.command("chat", context_settings={"show_default": True})
@click.argument("target", metavar="[MODEL|URL]", required=False)
@chat_options
def chat(target: str | None, **options: Any) -> None:
    """Chat with a model in the terminal.

    A URL is the address of a running server; HOST:PORT is enough. A MODEL is served for this chat alone, not
    on a port; it is the embedded model if it is left out. Ctrl-C ends an answer, `/help` lists the commands,
    `/exit` or Ctrl-D leaves.
    """
    from rich.console import Console

    from fllm_terminal.loop import chat_until_end
    from fllm_terminal.session import open_session
    from fllm_terminal.text import accept_all_text

    accept_all_text()
    with open_session(target, read_options(**options)) as session:
        chat_until_end(session, Console(highlight=False))
