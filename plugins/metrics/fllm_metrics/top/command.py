"""The command ``furiosa-llm top``."""

from __future__ import annotations

import sys
from contextlib import suppress

import rich_click as click


@click.command("top", context_settings={"show_default": True})
@click.argument("url", required=False, default="http://localhost:8000")
@click.option(
    "--api-key",
    envvar="FURIOSA_LLM_API_KEY",
    help="One of the server's keys. Environment variable: FURIOSA_LLM_API_KEY.",
    show_default=False,
)
@click.option("--interval", type=click.FloatRange(min=0.1), default=1.0, help="Seconds between updates.")
@click.option(
    "--once",
    is_flag=True,
    help="Print one frame as plain text; exit with status 1 if the server is unhealthy.",
)
def top(url: str, api_key: str | None, interval: float, once: bool) -> None:
    """Watch a running server in the terminal: requests, tokens, latencies, cache.

    URL is the server's address. The server must run with --enable-metrics.
    """
    from rich.console import Console

    from fllm_metrics.top import loop
    from fllm_metrics.top.client import Client

    client = Client(url, api_key)
    if once:
        plain = Console(color_system=None, highlight=False)
        sys.exit(0 if loop.print_once(client, plain, interval) else 1)
    if not sys.stdout.isatty():
        raise click.UsageError("stdout is not a terminal; --once prints one frame")
    with suppress(KeyboardInterrupt):
        loop.watch(client, Console(highlight=False), interval)
