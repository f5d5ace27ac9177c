"""Code of a plugin author; type checkers must find no errors in it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence

import fllm


class ShoutParser:
    """A parser needs no base class."""

    visible_tokens = ("<|python_tag|>",)

    def __init__(self, context: fllm.ParserContext) -> None:
        self._names = [tool.name for tool in context.tools]

    def feed(self, text: str) -> Iterable[fllm.ParserEvent]:
        if text in self._names:
            yield fllm.ToolStart(0, text)
            yield fllm.ToolArguments(0, "{}")
        elif text.startswith("?"):
            yield fllm.Reasoning(text)
        else:
            yield fllm.Text(text)

    def finish(self) -> list[fllm.Text]:
        return []


class EchoBackend:
    """A backend needs no base class."""

    def __init__(self, config: fllm.BackendConfig, context: fllm.BackendContext) -> None:
        self._model = config.model
        self._progress = context.progress

    async def start(self) -> fllm.ModelCard:
        self._progress(fllm.Progress("Loading", 1, 2))
        if not self._model:
            raise fllm.ModelError("no model")
        return fllm.ModelCard(tokenizer=self._model, max_model_len=128)

    async def generate(self, request: fllm.GenerateRequest) -> AsyncGenerator[fllm.EngineOutput]:
        for token_id in request.token_ids[:-1]:
            yield fllm.EngineOutput(token_ids=[token_id])
        yield fllm.EngineOutput(token_ids=request.token_ids[-1:], finish_reason="stop")

    async def status(self) -> fllm.EngineStats:
        return fllm.EngineStats(running=1)

    async def stop(self) -> None: ...


class Counter(fllm.Collector):
    """A collector overrides what it needs."""

    def __init__(self) -> None:
        self.tokens = 0

    def on_progress(self, request: fllm.RequestRecord, gaps: Sequence[float], tokens: int) -> None:
        self.tokens += tokens

    def expose(self, status: fllm.EngineStats | None, accept: str) -> fllm.MetricsPage:
        return fllm.MetricsPage("text/plain", f"tokens {self.tokens}".encode())

    def on_interval(self, stats: fllm.EngineStats | None) -> None: ...


parser: fllm.ParserFactory = ShoutParser
backend: fllm.BackendFactory = EchoBackend
collector: fllm.Collector = Counter()
exposer: fllm.MetricsExporter = Counter()


@fllm.hookimpl
def fllm_backends() -> Iterable[fllm.BackendEntry]:
    yield fllm.BackendEntry("echo", f"{__name__}:EchoBackend", "Returns the prompt.", devices=("cpu",))


@fllm.hookimpl
def fllm_tool_parsers() -> list[fllm.Entry]:
    return [fllm.Entry("shout", f"{__name__}:ShoutParser")]


@fllm.hookimpl(tryfirst=True)
def fllm_chat_template(context: fllm.TemplateContext) -> fllm.ChatTemplates | None:
    return {"default": context.file.read_text()} if context.file else None


@fllm.hookimpl
def fllm_collectors(context: fllm.MetricsContext) -> Iterable[fllm.Collector]:
    if context.config.enabled:
        yield Counter()


def content_of(events: Iterable[fllm.Event]) -> str:
    """Return the text; events are a closed union, so a checker verifies that each is handled."""
    text = ""
    for event in events:
        match event:
            case fllm.Text(piece):
                text += piece
            case fllm.Reasoning() | fllm.ToolStart() | fllm.ToolArguments():
                pass
            case fllm.Finished(reason=reason):
                text += reason
    return text
