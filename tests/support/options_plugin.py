"""A plugin of every kind, whose parts show the options that they receive."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from typing import Annotated, Any

import rich_click as click
from msgspec import Meta, Struct, to_builtins

import fllm


class Retry(Struct, frozen=True, kw_only=True):
    attempts: Annotated[int, Meta(ge=1)] = 3


class Options(Struct, frozen=True, kw_only=True):
    name: Annotated[str, Meta(description="name of the place")]
    port: Annotated[int, Meta(ge=1, le=65535)] = 8125
    token: Annotated[str, Meta(description="access token", extra={"secret": True})] = ""
    tags: list[str] = []
    retry: Retry = Retry()


FLLM_OPTIONS = Options


class ShownBackend:
    def __init__(self, config: fllm.BackendConfig, context: fllm.BackendContext) -> None:
        self.options: Options = context.options

    async def start(self) -> fllm.ModelCard:
        return fllm.ModelCard(tokenizer=".", max_model_len=8, runtime={"options": to_builtins(self.options)})

    async def generate(self, request: fllm.GenerateRequest) -> AsyncGenerator[fllm.EngineOutput]:
        yield fllm.EngineOutput(finish_reason="stop")

    async def status(self) -> fllm.EngineStats:
        return fllm.EngineStats()

    async def stop(self) -> None:
        pass


class ShownParser:
    def __init__(self, context: fllm.ParserContext) -> None:
        self._options: Options = context.options

    def feed(self, text: str) -> Iterable[fllm.ParserEvent]:
        return [fllm.Text(self._options.name)]

    def finish(self) -> Iterable[fllm.ParserEvent]:
        return []


def grammar(context: fllm.GrammarContext) -> Any:
    return context.options


def placement(context: fllm.PlacementContext) -> Any:
    return context.plugin_options


class ShownCollector(fllm.Collector):
    def __init__(self, options: Options) -> None:
        self.options = options


@click.command()
@click.pass_obj
def show_name(options: Options) -> None:
    click.echo(f"{options.name}:{options.port}")


@fllm.hookimpl
def fllm_backends() -> Iterable[fllm.BackendEntry]:
    yield fllm.BackendEntry("shown", f"{__name__}:ShownBackend")


@fllm.hookimpl
def fllm_tool_parsers() -> Iterable[fllm.Entry]:
    yield fllm.Entry("shown", f"{__name__}:ShownParser")


@fllm.hookimpl
def fllm_reasoning_parsers() -> Iterable[fllm.Entry]:
    yield fllm.Entry("shown", f"{__name__}:ShownParser")


@fllm.hookimpl
def fllm_grammars() -> Iterable[fllm.Entry]:
    yield fllm.Entry("shown", f"{__name__}:grammar")


@fllm.hookimpl
def fllm_placements() -> Iterable[fllm.PlacementEntry]:
    yield fllm.PlacementEntry("shown", f"{__name__}:placement")


@fllm.hookimpl
def fllm_commands() -> Iterable[fllm.Entry]:
    yield fllm.Entry("show-name", f"{__name__}:show_name", "Print the name.")


@fllm.hookimpl
def fllm_chat_template(context: fllm.TemplateContext) -> dict[str, str]:
    return {"default": context.options.name}


@fllm.hookimpl
def fllm_collectors(context: fllm.MetricsContext) -> Iterable[fllm.Collector]:
    yield ShownCollector(context.options)


@fllm.hookimpl
def fllm_routes(context: fllm.RoutesContext) -> Iterable[Any]:
    yield context.options
