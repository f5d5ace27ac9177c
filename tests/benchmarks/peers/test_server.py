"""`benchmarks/peers/server.py`, with an engine that echoes the prompt, one id a step."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from support.paths import ROOT


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("peers.server")


class Echo:
    """Generates the ids of the prompt, again and again; 0 ends a request, 9 breaks the step."""

    def __init__(self, outputs: Callable[..., Any]) -> None:
        self._output = outputs
        self.live: dict[Any, int] = {}
        self.waits_for = 1
        """Requests that must be there before the first step."""

    def add(self, request: Any) -> None:
        self.live[request] = 0

    def remove(self, request: Any) -> None:
        self.live.pop(request, None)

    def step(self) -> list[Any]:
        if len(self.live) < self.waits_for:
            return []
        self.waits_for = 1
        outputs = []
        for request, count in list(self.live.items()):
            token = request.ids[count % len(request.ids)]
            if token == 9:
                raise RuntimeError("no such id: 9")
            ended = token == 0 and not request.ignore_eos
            reason = "stop" if ended else "length" if count + 1 == request.max_tokens else None
            outputs.append(self._output(request, [] if ended else [token], reason))
            self.live[request] += 1
            if reason:
                del self.live[request]
        return outputs


class Digits:
    """One id for each digit. A chat's prompt are its contents and the number of its tools."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        return [int(each) for each in text]

    def render(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
        return "".join(message["content"] for message in messages) + str(len(tools or ()))

    def stream(self) -> Digits:
        return self

    def step(self, ids: list[int]) -> str:
        return "".join(str(each) for each in ids)


def talk(server: ModuleType, use: Callable[[TestClient[Any, Any], Echo], Awaitable[None]]) -> None:
    async def main() -> None:
        engine = Echo(server.Output)
        app = server.Server(engine, Digits(), "model", context=20).app()
        async with TestClient(TestServer(app)) as client:
            await use(client, engine)

    asyncio.run(main())


async def post(client: TestClient[Any, Any], path: str, **body: Any) -> tuple[int, Any]:
    async with client.post(f"/v1/{path}", json=body) as response:
        return response.status, await response.json()


async def events(client: TestClient[Any, Any], path: str, **body: Any) -> list[Any]:
    async with client.post(f"/v1/{path}", json={**body, "stream": True}) as response:
        lines = (await response.text()).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def test_a_completion_has_its_text_and_usage(server: ModuleType) -> None:
    async def use(client: TestClient[Any, Any], _: Echo) -> None:
        status, body = await post(client, "completions", prompt="123", max_tokens=5)
        assert status == 200
        assert body["choices"] == [{"index": 0, "finish_reason": "length", "logprobs": None, "text": "12312"}]
        assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}

    talk(server, use)


def test_the_end_of_a_sequence_counts_unless_it_is_ignored(server: ModuleType) -> None:
    async def use(client: TestClient[Any, Any], _: Echo) -> None:
        ended = (await post(client, "completions", prompt=[1, 0, 2], max_tokens=5))[1]["choices"][0]
        assert (ended["text"], ended["finish_reason"]) == ("1", "stop")
        ignored = await post(client, "completions", prompt=[1, 0, 2], max_tokens=5, ignore_eos=True)
        assert ignored[1]["choices"][0]["text"] == "10210"

    talk(server, use)


def test_a_chat_is_streamed_with_its_tools_in_the_prompt(server: ModuleType) -> None:
    async def use(client: TestClient[Any, Any], _: Echo) -> None:
        chat = {"messages": [{"role": "user", "content": "12"}], "tools": [{}, {}, {}], "max_tokens": 4}
        *chunks, usage = await events(
            client, "chat/completions", **chat, stream_options={"include_usage": True}
        )
        assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks) == "1231"
        assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "length"]
        assert usage["choices"] == []
        assert usage["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}

    talk(server, use)


def test_requests_are_in_the_same_steps(server: ModuleType) -> None:
    async def use(client: TestClient[Any, Any], engine: Echo) -> None:
        engine.waits_for = 4
        answers = await asyncio.gather(
            *(post(client, "completions", prompt=str(each), max_tokens=15) for each in range(1, 5))
        )
        texts = [body["choices"][0]["text"] for _, body in answers]
        assert texts == ["1" * 15, "2" * 15, "3" * 15, "4" * 15]

    talk(server, use)


def test_no_output_exceeds_the_context(server: ModuleType) -> None:
    async def use(client: TestClient[Any, Any], _: Echo) -> None:
        body = (await post(client, "completions", prompt="1" * 18, max_tokens=100))[1]
        assert body["usage"]["completion_tokens"] == 2

    talk(server, use)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("completions", {}, "KeyError: 'prompt'"),
        ("completions", {"prompt": []}, "ValueError: prompt must be one text, or a list of ids"),
        ("completions", {"prompt": ["1", "2"]}, "ValueError: prompt must be one text, or a list of ids"),
        ("completions", {"prompt": "1" * 20}, "ValueError: the prompt has 20 tokens, and the context 20"),
        ("chat/completions", {"messages": [{"content": None}]}, "TypeError: "),
    ],
)
def test_a_bad_request_gets_a_reason(server: ModuleType, path: str, body: Any, message: str) -> None:
    async def use(client: TestClient[Any, Any], _: Echo) -> None:
        status, answer = await post(client, path, **body)
        assert status == 400
        assert answer["error"]["message"].startswith(message)

    talk(server, use)


def test_an_engine_that_fails_ends_the_request_and_serves_the_next(server: ModuleType) -> None:
    async def use(client: TestClient[Any, Any], engine: Echo) -> None:
        status, body = await post(client, "completions", prompt="19")
        assert (status, body["error"]["message"]) == (500, "RuntimeError: no such id: 9")
        assert engine.live == {}
        assert (await post(client, "completions", prompt="2", max_tokens=2))[0] == 200

    talk(server, use)


def test_a_client_that_leaves_ends_its_request(server: ModuleType) -> None:
    async def use(client: TestClient[Any, Any], engine: Echo) -> None:
        thread = server.EngineThread(engine, asyncio.get_running_loop())
        request = server.Request([1], max_tokens=10**9)
        async for output in thread.generate(request):
            assert output.ids == [1]
            break
        async with asyncio.timeout(10):
            while request in engine.live:
                await asyncio.sleep(0.001)

    talk(server, use)


def test_the_server_lists_its_model(server: ModuleType) -> None:
    async def use(client: TestClient[Any, Any], _: Echo) -> None:
        async with client.get("/v1/models") as response:
            assert [each["id"] for each in (await response.json())["data"]] == ["model"]
        async with client.get("/health") as response:
            assert response.status == 200

    talk(server, use)
