"""A server without a model: a tiny tokenizer, a scripted backend, and helpers that send requests."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Iterator, Sequence
from types import ModuleType
from typing import Any

import httpx
from litestar import Litestar
from msgspec.structs import replace
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Inner

from fllm.chat import ChatTemplate, control_tokens
from fllm.events import ParserEvent, Reasoning, Text, ToolArguments, ToolStart
from fllm.interfaces import Collector, ParserContext, RequestRecord
from fllm.plugins.discovery import Candidate
from fllm.plugins.hooks import hookimpl
from fllm.plugins.loader import Plugins
from fllm.plugins.validation import reasoning_parser, tool_parser
from fllm.tokenizer import Tokenizer
from fllm.values import EngineOutput, EngineStats, GenerateRequest, ModelCard, SamplingParams, TokenLogprob
from fllm_api.app import create_app
from fllm_api.app_state import AppState
from fllm_api.config import ServerConfig

EOS = "<|eot|>"
TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}{{ note }}{{ reasoning_effort }}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def byte_tokenizer(words: Sequence[str] = (), *, bos: bool = False) -> Tokenizer:
    """Return a tokenizer with one token per byte, and one per word, which only a backend can produce."""
    encode = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    spelled = [encode.pre_tokenize_str(word)[0][0] for word in words]
    names = dict.fromkeys([*sorted(pre_tokenizers.ByteLevel.alphabet()), *spelled])
    inner = Inner(models.BPE({name: i for i, name in enumerate(names)}, []))
    inner.pre_tokenizer = encode
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(EOS, special=True), AddedToken("<s>", special=True)])
    return Tokenizer(inner, {"eos_token": EOS, **({"bos_token": "<s>"} if bos else {})})


def spell(tokenizer: Tokenizer, word: str) -> int:
    """Return the id of a word's token."""
    encode = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    found = tokenizer.token_to_id(word)
    found = tokenizer.token_to_id(encode.pre_tokenize_str(word)[0][0]) if found is None else found
    assert found is not None, word
    return found


COMPLETION_SCOPE: dict[str, Any] = {
    "type": "http",
    "method": "POST",
    "path": "/v1/completions",
    "raw_path": b"/v1/completions",
    "root_path": "",
    "query_string": b"",
    "headers": [(b"content-type", b"application/json")],
    "client": ("127.0.0.1", 1),
    "server": ("test", 80),
    "scheme": "http",
    "http_version": "1.1",
}
"""ASGI scope of a completion request; copy it, because the application changes it."""


class FakeBackend:
    """Returns the same token ids for every prompt. Records its requests, and which were aborted."""

    def __init__(self, steps: Sequence[Sequence[int]] = (), *, eos: int | None = None) -> None:
        self.steps = [list(step) for step in steps]
        self.eos = eos
        self.prompts: list[GenerateRequest] = []
        self.aborted: list[str] = []
        self.stalls_after: int | None = None
        """Number of steps after which it returns nothing more."""
        self.fails_after: int | None = None
        """Number of steps after which it raises ``failure``."""
        self.failure: Exception = RuntimeError("secret")
        self.health: Exception | None = None
        self.logprobs: Sequence[float] = (-0.25,)
        """Log-probability of every token, by sequence; the last one holds for all further sequences."""
        self.given_logprobs: dict[int, float] = {}
        """Log-probabilities of the tokens that a request gives; -2 for others."""

    async def start(self) -> ModelCard:
        raise AssertionError("the fake needs no start")

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        self.prompts.append(request)
        logprob = self.logprobs[min(len(self.prompts), len(self.logprobs)) - 1]
        over = False
        try:
            for count, step in enumerate(self._script(request, logprob)):
                await asyncio.sleep(0)
                if count == self.stalls_after:
                    await asyncio.Event().wait()
                if count == self.fails_after:
                    raise self.failure
                over = step.finish_reason is not None
                yield step
        finally:
            if not over:
                self.aborted.append(request.request_id)

    def _script(self, prompt: GenerateRequest, logprob: float) -> Iterator[EngineOutput]:
        sampling, count = prompt.sampling, 0
        first = EngineOutput(cached_tokens=1, prompt_logprobs=self._prompt_logprobs(prompt))
        if sampling.max_tokens == 0:
            yield replace(first, finish_reason="length")
            return
        for i, ids in enumerate(self.steps):
            ids = ids[: sampling.max_tokens - count]
            count += len(ids)
            ends = i == len(self.steps) - 1
            stops = ends and ids[-1:] == [self.eos]
            yield replace(
                first if i == 0 else EngineOutput(),
                token_ids=ids,
                logprobs=[
                    self._with_given(_logprob(each, logprob, sampling.logprobs), sampling) for each in ids
                ]
                if sampling.logprobs is not None
                else None,
                finish_reason="stop" if stops else "length" if ends or count == sampling.max_tokens else None,
                stop_token=self.eos if stops else None,
            )
            if count == sampling.max_tokens:
                return

    def _with_given(self, logprob: TokenLogprob, sampling: SamplingParams) -> TokenLogprob:
        given = tuple((i, self.given_logprobs.get(i, -2.0)) for i in sampling.logprob_token_ids)
        return replace(logprob, top=given) if given else logprob

    def _prompt_logprobs(self, prompt: GenerateRequest) -> list[TokenLogprob | None] | None:
        top = prompt.sampling.prompt_logprobs
        return None if top is None else [None, *(_logprob(i, -0.5, top) for i in prompt.token_ids[1:])]

    async def status(self) -> EngineStats:
        if self.health is not None:
            raise self.health
        return EngineStats(running=1)

    async def stop(self) -> None:
        pass


def _logprob(token_id: int, logprob: float, top: int | None) -> TokenLogprob:
    return TokenLogprob(token_id, logprob, ((token_id, logprob), (0, -2.0), (1, -math.inf))[: top or 0])


class Recorder(Collector):
    """A collector that records its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.requests: list[RequestRecord] = []

    def on_request_start(self, request: RequestRecord) -> None:
        self.requests.append(request)
        self.calls.append("on_request_start")

    def on_first_token(self, request: RequestRecord) -> None:
        self.calls.append("on_first_token")

    def on_progress(self, request: RequestRecord, gaps: Sequence[float], tokens: int) -> None:
        self.calls.append(f"on_progress {tokens}")

    def on_request_end(self, request: RequestRecord) -> None:
        self.calls.append(f"on_request_end {request.error}")


def a_server(words: Sequence[str] = ("Hello", " world", "!"), **parts: Any) -> AppState:
    """Return a server whose backend generates ``words``, one a step; ``parts`` replace fields of `AppState`.

    ``config`` and ``card`` are dicts with fields of `ServerConfig` and `ModelCard`.
    ``reasoning`` and ``tools`` are factories of parsers.
    """
    bos = parts.pop("bos", False)
    known = [word for word in words if word != EOS]
    tokenizer = byte_tokenizer(known, bos=bos)
    eos = spell(tokenizer, EOS)
    ids = [spell(tokenizer, word) for word in words]
    config = ServerConfig(**{"served_model_name": "org/fake", **parts.pop("config", {})})
    about = {"tokenizer": "", "max_model_len": 512, "eos_token_ids": (eos,), **parts.pop("card", {})}
    template = ChatTemplate.compile(
        {"default": TEMPLATE},
        special_tokens=tokenizer.special_tokens,
        control_tokens=control_tokens(tokenizer),
    )
    defaults = {
        "config": config,
        "plugins": Plugins(),
        "backend": FakeBackend([[i] for i in (*ids, *([] if EOS in words else [eos]))], eos=eos),
        "backend_name": "fake",
        "card": ModelCard(**about),
        "tokenizer": tokenizer,
        "template": template,
        "created": 1700000000,
    }
    if (reasoning := parts.pop("reasoning", None)) is not None:
        parts["reasoning_parser"] = reasoning_parser(reasoning)
    if (tools := parts.pop("tools", None)) is not None:
        parts["tool_parser"] = tool_parser(tools)
    return AppState(**{**defaults, **parts})


def a_server_with(*routes: object) -> AppState:
    """Return a server with one plugin per route, named p0, p1, and so on."""
    plugins = Plugins()
    for i, route in enumerate(routes):
        module = ModuleType(f"p{i}")
        module.fllm_routes = hookimpl(lambda route=route: [route], specname="fllm_routes")  # type: ignore[attr-defined]
        plugins.load(Candidate(f"p{i}", "d", "1", "m", lambda module=module: module))
    return a_server(plugins=plugins)


def backend_of(server: AppState) -> FakeBackend:
    """Return the server's fake backend."""
    assert isinstance(server.backend, FakeBackend)
    return server.backend


_apps: dict[int, tuple[AppState, Litestar]] = {}


def app_of(server: AppState) -> Litestar:
    """Return the server's application, built once because that takes longer than a request."""
    if id(server) not in _apps:
        _apps[id(server)] = (server, create_app(server))
    return _apps[id(server)][1]


def ask(server: AppState, method: str, path: str, **request: Any) -> httpx.Response:
    """Send one request over ASGI."""

    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(app_of(server))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **request)

    return asyncio.run(go())


def chat(server: AppState, **body: Any) -> httpx.Response:
    """Send a chat request; its default message is ``Hi``."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **body}
    return ask(server, "POST", "/v1/chat/completions", json=body)


def complete(server: AppState, **body: Any) -> httpx.Response:
    """Send a completion request; its default prompt is ``Hi``."""
    return ask(server, "POST", "/v1/completions", json={"model": "m", "prompt": "Hi", **body})


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the chunks of a stream, after checking that it ends with ``[DONE]``."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = response.text.split("\n\n")
    assert lines.pop() == ""
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def error_of(response: httpx.Response) -> dict[str, Any]:
    """Return the content of the error envelope, after checking that it is complete."""
    body = response.json()
    assert set(body) == {"error"}, body
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


class FakeReasoningParser:
    """A reasoning parser: the text before the first ``|`` is reasoning."""

    def __init__(self, context: ParserContext) -> None:
        self.context = context
        self._thinking = True

    def feed(self, text: str) -> Iterator[ParserEvent]:
        if self._thinking:
            thought, bar, text = text.partition("|")
            self._thinking = not bar
            if thought:
                yield Reasoning(thought)
        if text:
            yield Text(text)

    def finish(self) -> Iterator[ParserEvent]:
        return iter(())


class FakeToolCallParser:
    """A tool-call parser: ``[name:arguments]`` is a call."""

    def __init__(self, context: ParserContext) -> None:
        self.context = context
        self._calls = -1
        self._name: str | None = None
        self._inside = False

    def feed(self, text: str) -> Iterator[ParserEvent]:
        for character in text:
            yield from self._character(character)

    def finish(self) -> Iterator[ParserEvent]:
        return iter(())

    def _character(self, character: str) -> Iterator[ParserEvent]:
        if character == "[" and not self._inside and self._name is None:
            self._name = ""
        elif character == ":" and self._name is not None:
            self._calls += 1
            yield ToolStart(self._calls, self._name)
            self._name, self._inside = None, True
        elif self._name is not None:
            self._name += character
        elif character == "]" and self._inside:
            self._inside = False
        elif self._inside:
            yield ToolArguments(self._calls, character)
        else:
            yield Text(character)
