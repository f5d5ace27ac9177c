"""A small OpenAI-compatible server for an engine that has none. It runs in the engine's environment.

Requests take ``prompt`` or ``messages`` and ``tools``, ``max_tokens``, ``temperature``, ``ignore_eos``,
``stream`` and ``stream_options``. Other fields are ignored: loads send what all servers know. Answers are
text; tool calls in them are not parsed.
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

MAX_BODY_BYTES = 16 << 20


@dataclass(frozen=True, eq=False)
class Request:
    """One sequence to generate."""

    ids: list[int]
    max_tokens: int
    temperature: float = 0.0
    ignore_eos: bool = False


@dataclass(frozen=True)
class Output:
    """What one step generated for a request."""

    request: Request
    ids: list[int]
    finish_reason: str | None = None


class Engine(Protocol):
    """Generates for all requests at once. One thread calls it."""

    def add(self, request: Request) -> None:
        """Accept a request for the next step."""

    def remove(self, request: Request) -> None:
        """Stop to generate for a request whose client has gone."""

    def step(self) -> list[Output]:
        """Compute one step; return what it generated."""


class Stream(Protocol):
    """Turns ids into text, a piece at a time."""

    def step(self, ids: list[int]) -> str:
        """Return the text that some more ids complete."""


class Codec(Protocol):
    """The model's tokenizer and chat template."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Return the ids of a text, with special tokens at its ends where the model wants them."""

    def render(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
        """Return the prompt of a chat."""

    def stream(self) -> Stream:
        """Return a decoder for one answer."""


class EngineThread:
    """Runs an engine in its own thread; asyncio's thread receives the outputs of a step all at once."""

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._loop = loop
        self._arrivals: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._live: set[Request] = set()
        self._outputs: dict[Request, asyncio.Queue[Output | Exception]] = {}
        threading.Thread(target=self._run, name="engine", daemon=True).start()

    async def generate(self, request: Request) -> AsyncIterator[Output]:
        """Yield the outputs of a request until it is finished. Raise what the engine raised."""
        outputs = self._outputs[request] = asyncio.Queue()
        self._arrivals.put(lambda: self._add(request))
        try:
            while True:
                output = await outputs.get()
                if isinstance(output, Exception):
                    raise output
                yield output
                if output.finish_reason:
                    return
        finally:
            del self._outputs[request]
            self._arrivals.put(lambda: self._remove(request))

    def _run(self) -> None:
        while True:
            try:
                while not self._live or not self._arrivals.empty():
                    self._arrivals.get()()
                outputs = self._engine.step()
            except Exception as error:  # noqa: BLE001  the edge of the thread: the clients receive it
                self._fail(error)
                continue
            self._live -= {output.request for output in outputs if output.finish_reason}
            self._loop.call_soon_threadsafe(self._deliver, outputs)

    def _add(self, request: Request) -> None:
        self._live.add(request)
        self._engine.add(request)

    def _remove(self, request: Request) -> None:
        if request in self._live:
            self._live.discard(request)
            self._engine.remove(request)

    def _fail(self, error: Exception) -> None:
        failed, self._live = self._live, set()
        for request in failed:
            self._engine.remove(request)
            self._loop.call_soon_threadsafe(self._hand, request, error)

    def _deliver(self, outputs: list[Output]) -> None:
        for output in outputs:
            self._hand(output.request, output)

    def _hand(self, request: Request, output: Output | Exception) -> None:
        if waiting := self._outputs.get(request):
            waiting.put_nowait(output)


@dataclass
class _Answer:
    """One HTTP request while it is answered, in the form of its endpoint."""

    chat: bool
    model: str
    request: Request
    include_usage: bool
    generated: int = 0
    finish_reason: str | None = None
    created: int = field(default_factory=lambda: int(time.time()))

    def body(self, text: str | None, *, streamed: bool) -> dict[str, Any]:
        """Return a chunk or a whole response; None stands for the chunk that has only the usage."""
        kind = "chat.completion" if self.chat else "text_completion"
        choice: dict[str, Any] = {"index": 0, "finish_reason": self.finish_reason, "logprobs": None}
        if self.chat:
            choice["delta" if streamed else "message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        body: dict[str, Any] = {
            "id": f"cmpl-{id(self):x}",
            "object": f"{kind}.chunk" if self.chat and streamed else kind,
            "created": self.created,
            "model": self.model,
            "choices": [] if text is None else [choice],
        }
        if text is None or not streamed:
            prompt = len(self.request.ids)
            body["usage"] = {
                "prompt_tokens": prompt,
                "completion_tokens": self.generated,
                "total_tokens": prompt + self.generated,
            }
        return body


class Server:
    """The endpoints of one model."""

    def __init__(self, engine: Engine, codec: Codec, model: str, context: int) -> None:
        self._engine, self._codec, self._model, self._context = engine, codec, model, context
        self._thread: EngineThread | None = None

    def app(self) -> web.Application:
        """Return the application; its engine runs from its start."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.on_startup.append(self._start)
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/v1/chat/completions", self._complete)
        return app

    async def _start(self, _: web.Application) -> None:
        self._thread = EngineThread(self._engine, asyncio.get_running_loop())

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _models(self, _: web.Request) -> web.Response:
        model = {"id": self._model, "object": "model", "max_model_len": self._context}
        return web.json_response({"object": "list", "data": [model]})

    async def _complete(self, http: web.Request) -> web.StreamResponse:
        try:
            body = await http.json()
            answer = self._read(body, chat=http.path.endswith("/chat/completions"))
        except (KeyError, TypeError, ValueError) as error:
            return _error(error, 400)
        if body.get("stream"):
            return await self._stream(http, answer)
        try:
            return await self._whole(answer)
        except Exception as error:  # noqa: BLE001  the edge: what the engine raised
            return _error(error, 500)

    def _read(self, body: dict[str, Any], *, chat: bool) -> _Answer:
        """Return what a body asks for; raise `ValueError`, `KeyError` or `TypeError`."""
        if chat:
            ids = self._codec.encode(self._codec.render(body["messages"], body.get("tools")), special=False)
        else:
            prompt = body["prompt"]
            ids = self._codec.encode(prompt, special=True) if isinstance(prompt, str) else prompt
        if not ids or not all(type(each) is int for each in ids):
            raise ValueError("prompt must be one text, or a list of ids")
        space = self._context - len(ids)
        if space < 1:
            raise ValueError(f"the prompt has {len(ids)} tokens, and the context {self._context}")
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or (space if chat else 16)
        temperature = float(body.get("temperature") or 0.0)
        request = Request(ids, min(int(limit), space), temperature, bool(body.get("ignore_eos")))
        options = body.get("stream_options") or {}
        return _Answer(chat, self._model, request, bool(options.get("include_usage")))

    async def _texts(self, answer: _Answer) -> AsyncIterator[str]:
        """Yield the text of each step, and count what was generated."""
        assert self._thread, "the application has started"
        stream = self._codec.stream()
        async for output in self._thread.generate(answer.request):
            answer.generated += len(output.ids)
            answer.finish_reason = output.finish_reason
            yield stream.step(output.ids)

    async def _whole(self, answer: _Answer) -> web.Response:
        text = "".join([text async for text in self._texts(answer)])
        return web.json_response(answer.body(text, streamed=False))

    async def _stream(self, http: web.Request, answer: _Answer) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(http)
        async for text in self._texts(answer):
            if text or answer.finish_reason:
                await response.write(_event(answer.body(text, streamed=True)))
        if answer.include_usage:
            await response.write(_event(answer.body(None, streamed=True)))
        await response.write(b"data: [DONE]\n\n")
        return response


def _error(error: Exception, status: int) -> web.Response:
    message = f"{type(error).__name__}: {error}"
    return web.json_response({"error": {"message": message, "code": status}}, status=status)


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


class HuggingFaceCodec:
    """The tokenizer and the chat template of a directory in Hugging Face's layout."""

    def __init__(self, directory: Path) -> None:
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._config: dict[str, Any] = json.loads((directory / "tokenizer_config.json").read_text())
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        self._template = environment.from_string(self._config.get("chat_template") or "")

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Return the ids of a text, with special tokens at its ends where the model wants them."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=special).ids
        return ids

    def render(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
        """Return the prompt of a chat."""
        tokens = {name: self._config.get(name) for name in ("bos_token", "eos_token")}
        return self._template.render(messages=messages, tools=tools, add_generation_prompt=True, **tokens)

    def stream(self) -> Stream:
        """Return a decoder for one answer."""
        from tokenizers.decoders import DecodeStream

        tokenizer, decoder = self._tokenizer, DecodeStream(skip_special_tokens=True)

        class Pieces:
            def step(self, ids: list[int]) -> str:
                return "".join(decoder.step(tokenizer, each) or "" for each in ids)

        return Pieces()


def run(engine: Engine, tokenizer: Path, model: str, context: int, port: int) -> None:
    """Serve an engine on localhost until the process is ended."""
    server = Server(engine, HuggingFaceCodec(tokenizer), model, context)
    web.run_app(
        server.app(), host="127.0.0.1", port=port, print=None, access_log=None, handler_cancellation=True
    )
