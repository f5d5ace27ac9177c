"""``furiosa-llm plugins parse``: print the events that a parser makes of a text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

import msgspec
import rich_click as click
from msgspec.structs import replace

from fllm.containment import mapped
from fllm.errors import ConfigError, PluginError, UnknownName, format_error
from fllm.events import ParserEvent, Text
from fllm.interfaces import Parser, ParserContext
from fllm.parsing import ParserSample
from fllm.parsing.request_tools import to_tools
from fllm.parsing.sample import ParserKind, ParserStage, decode_samples
from fllm.plugins.loader import Plugins
from fllm.plugins.traceback_location import plugin_frame
from fllm.requests.chat import ChatTool
from fllm.values import Tool
from fllm_api.cli.loaded_plugins import plugins_of
from fllm_api.cli.options import CONTEXT_SETTINGS, PLUGIN_COMMAND_OPTIONS

JSON = click.RichOption(["--json", "as_json"], is_flag=True, help="Print samples as lines of JSON.")


@click.command("parse", params=[JSON, *PLUGIN_COMMAND_OPTIONS], context_settings=CONTEXT_SETTINGS)
@click.argument("name", required=False)
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--reasoning-parser", metavar="NAME", help="Reasoning parser that reads the text first.")
@click.option("--tools", type=click.File("rb"), metavar="FILE", help="JSON array of tools, as in a request.")
@click.option(
    "--samples",
    type=click.File("rb"),
    metavar="FILE",
    help="Parse the samples of FILE, as `serve --record` writes them, instead of a text. NAME replaces their "
    "parser. The exit status is 1 if the events of a sample differ from those that it records.",
)
@click.pass_context
def parse(
    ctx: click.RichContext,
    /,
    name: str | None,
    file: BinaryIO,
    reasoning_parser: str | None,
    tools: BinaryIO | None,
    samples: BinaryIO | None,
    as_json: bool,
    **_: Any,
) -> None:
    """Print the events that the parser NAME makes of FILE, which is a model's answer.

    NAME is a tool-call parser or, if none has this name, a reasoning parser. FILE is standard input by
    default. The parser `raw` of the server shows such answers.
    """
    plugins = plugins_of(ctx)
    plugins.check_options(allow_missing=True)
    if samples is not None:
        if reasoning_parser or tools:
            raise click.UsageError("--samples have their own tools and reasoning parsers")
        recorded = decode_samples(samples.read(), samples.name)
        ctx.exit(_parse_samples(plugins, recorded, name, as_json=as_json))
    if name is None:
        raise click.UsageError("Missing argument 'NAME'.")
    context = ParserContext(tools=_read_tools(tools))
    names: list[tuple[str, ParserKind]] = [(reasoning_parser, "reasoning")] if reasoning_parser else []
    names.append((name, _kind(plugins, name)))
    stages = [ParserStage(each, kind, _load(plugins, each, kind, context)) for each, kind in names]
    events: list[ParserEvent] = [Text(file.read().decode(errors="replace"))]
    for stage in stages:
        with _failing(stage.name):
            events = stage.run(events)
    if as_json:
        for stage in stages:
            click.echo(stage.sample(context).to_json())
    else:
        _print_events(events)


def _parse_samples(
    plugins: Plugins, samples: Sequence[ParserSample], name: str | None, *, as_json: bool
) -> int:
    """Print the events of samples. Return 1 if those of one differ from the recorded ones, else 0."""
    status = 0
    for number, sample in enumerate(samples, start=1):
        if name is not None:
            sample = replace(sample, parser=name, kind=_kind(plugins, name))
        parser = _load(plugins, sample.parser, sample.kind, sample.context())
        with _failing(sample.parser):
            events = sample.parse(parser)
        differs = sample.events is not None and sample.events != events
        status |= differs
        if as_json:
            click.echo(replace(sample, events=events).to_json())
            continue
        click.echo(f"sample {number}: {sample.kind} parser {sample.parser}")
        _print_events(events)
        if differs:
            click.echo("recorded:")
            _print_events(sample.events or ())
    return int(status)


def _kind(plugins: Plugins, name: str) -> ParserKind:
    if name in plugins.tool_parsers.names():
        return "tool-call"
    if name in plugins.reasoning_parsers.names():
        return "reasoning"
    raise UnknownName(f"there is no parser {name!r}: `furiosa-llm plugins` lists those that there are")


def _load(plugins: Plugins, name: str, kind: ParserKind, context: ParserContext) -> Parser:
    parsers = plugins.tool_parsers if kind == "tool-call" else plugins.reasoning_parsers
    factory = parsers.load(name)
    with _failing(name):
        return factory(context)


def _failing(name: str) -> mapped:
    """Report an error of a parser with its place, in one line."""
    return mapped(lambda error: PluginError(f"the parser {name!r} raised {_with_place(error)}"))


def _with_place(error: BaseException) -> str:
    place = plugin_frame(error)
    return format_error(error) + (f" ({place})" if place else "")


def _print_events(events: Iterable[ParserEvent]) -> None:
    for event in events:
        click.echo(repr(event))


def _read_tools(file: BinaryIO | None) -> tuple[Tool, ...]:
    if file is None:
        return ()
    try:
        return to_tools(msgspec.json.decode(file.read(), type=list[ChatTool]))
    except msgspec.DecodeError as error:
        raise ConfigError(f"--tools: {error}") from error
