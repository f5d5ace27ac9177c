"""Mistakes of a plugin author; type checkers must report each marked line, and no other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable

import fllm


class NoFinish:
    def __init__(self, context: fllm.ParserContext) -> None: ...

    def feed(self, text: str) -> Iterable[fllm.ParserEvent]:
        return []


class GivesStrings:
    def __init__(self, context: fllm.ParserContext) -> None: ...

    def feed(self, text: str) -> Iterable[str]:
        return [text]

    def finish(self) -> Iterable[str]:
        return []


class NoModelCard:
    def __init__(self, config: fllm.BackendConfig, context: fllm.BackendContext) -> None: ...

    async def start(self) -> None: ...

    async def generate(self, request: fllm.GenerateRequest) -> AsyncGenerator[fllm.EngineOutput]:
        yield fllm.EngineOutput(finish_reason="done")  # mistake

    async def status(self) -> fllm.EngineStats:
        return fllm.EngineStats()

    async def stop(self) -> None: ...


no_finish: fllm.ParserFactory = NoFinish  # mistake
gives_strings: fllm.ParserFactory = GivesStrings  # mistake
no_model_card: fllm.BackendFactory = NoModelCard  # mistake
collector: fllm.Collector = object()  # mistake

fllm.Entry("only a name")  # mistake
fllm.BackendEntry("name", "module:attribute", devices="cpu")  # mistake
fllm.SamplingParams()  # mistake
fllm.Text("frozen").text = "thawed"  # mistake
fllm.ModelCard("tokenizer", 128)  # mistake
