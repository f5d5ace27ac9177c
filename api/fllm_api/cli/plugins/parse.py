"""``furiosa-llm plugins parse``: print the events that a parser makes of a text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, BinaryIO

import msgspec
import rich_click as click

from fllm.errors import ConfigError
from fllm.events import ParserEvent, Text, merge_events
from fllm.interfaces import Parser, ParserContext
from fllm.plugins.registry import Registry
from fllm.requests.chat import ChatTool
from fllm.values import Tool
from fllm_api.cli.loaded_plugins import plugins_of
from fllm_api.cli.options import CONTEXT_SETTINGS, PLUGIN_COMMAND_OPTIONS
from fllm_api.intake.tools import to_tools


@click.command("parse", params=[*PLUGIN_COMMAND_OPTIONS], context_settings=CONTEXT_SETTINGS)
@click.argument("name")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--reasoning-parser", metavar="NAME", help="Reasoning parser that reads the text first.")
@click.option("--tools", type=click.File("rb"), metavar="FILE", help="JSON array of tools, as in a request.")
@click.pass_context
def parse(
    ctx: click.RichContext,
    /,
    name: str,
    file: BinaryIO,
    reasoning_parser: str | None,
    tools: BinaryIO | None,
    **_: Any,
) -> None:
    """Print the events that the parser NAME makes of FILE, which is a model's answer.

    NAME is a tool-call parser or, if none has this name, a reasoning parser. FILE is standard input by
    default. The parser `raw` of the server shows such answers.
    """
    plugins = plugins_of(ctx)
    plugins.check_options(allow_missing=True)
    context = ParserContext(tools=_read_tools(tools))
    stages: list[Parser] = []
    if reasoning_parser:
        stages.append(_load(plugins.reasoning_parsers, reasoning_parser, context))
    registry = plugins.tool_parsers if name in plugins.tool_parsers.names() else plugins.reasoning_parsers
    stages.append(_load(registry, name, context))
    text = file.read().decode(errors="replace")
    for event in merge_events(_run(stages, text)):
        click.echo(repr(event))


def _load(registry: Registry[Any], name: str, context: ParserContext) -> Parser:
    parser: Parser = registry.load(name)(context)
    return parser


def _run(stages: list[Parser], text: str) -> Iterable[ParserEvent]:
    """Return the events of the last parser for the text that the others leave, and the other events."""
    *before, last = stages
    events: list[ParserEvent] = [Text(text)]
    for stage in (*before, last):
        events = [made for event in events for made in _feed(stage, event)] + list(stage.finish())
    return events


def _feed(stage: Parser, event: ParserEvent) -> Iterable[ParserEvent]:
    return stage.feed(event.text) if isinstance(event, Text) else (event,)


def _read_tools(file: BinaryIO | None) -> tuple[Tool, ...]:
    if file is None:
        return ()
    try:
        return to_tools(msgspec.json.decode(file.read(), type=list[ChatTool]))
    except msgspec.DecodeError as error:
        raise ConfigError(f"--tools: {error}") from error
