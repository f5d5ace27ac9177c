"""Responses that are stored: read, continued and deleted, by their owner only, also after a restart."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.api_fakes import COMPLETION_SCOPE, FakeReasoningParser
from support.stored_responses import full_disk, responses_server, running, stores_opened

from fllm.concurrency.turn_executor import Pieces
from fllm.errors import ConfigError
from fllm_api.api_keys import ApiKeys
from fllm_api.app import create_app
from fllm_api.app_state import AppState
from fllm_api.serving import request_serving
from fllm_dialects.responses import new_generation
from fllm_dialects.responses.stored import items, response_records

MESSAGE = {"role": "user", "content": "Hi"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> AppState:
    """Return a server that is started by each test that uses it."""
    return responses_server(tmp_path_factory.mktemp("data"))


def texts(items: list[dict[str, Any]]) -> list[str]:
    """Return the role and the text of each item."""
    return [f"{item['role']}: {item['content'][0]['text']}" for item in items]


def test_a_response_is_read_continued_and_deleted_after_a_restart(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(responses_server(tmp_path)) as client:
            first = await client.create("Hi", instructions="Be brief")
            assert (first["store"], first["status"]) == (True, "completed")
            assert await client.get(f"/v1/responses/{first['id']}") == first
        async with running(responses_server(tmp_path)) as client:
            assert await client.get(f"/v1/responses/{first['id']}") == first
            second = await client.create("And now?", previous_response_id=first["id"])
            assert second["previous_response_id"] == first["id"]
            assert client.prompt() == "<user>Hi<assistant>Hello world!<user>And now?<assistant>"
            third = await client.create("More", previous_response_id=second["id"], instructions="New")
            assert client.prompt().startswith("<system>New<user>Hi<assistant>Hello world!<user>And now?")
            items = await client.get(f"/v1/responses/{third['id']}/input_items")
            assert texts(items["data"]) == ["user: More"]
            path = f"/v1/responses/{second['id']}"
            assert await client.call("DELETE", path) == {
                "id": second["id"],
                "object": "response",
                "deleted": True,
            }
            for method, missing in (("GET", path), ("DELETE", path), ("GET", f"{path}/input_items")):
                error = (await client.call(method, missing, 404))["error"]
                assert error["message"] == f"Response with id '{second['id']}' not found."
            for gone in (second["id"], third["id"]):
                error = (await client.create("Hi", 400, previous_response_id=gone))["error"]
                assert (error["param"], error["code"]) == (
                    "previous_response_id",
                    "previous_response_not_found",
                )
                assert second["id"] in error["message"]

    asyncio.run(run())


def test_a_message_has_the_beginning_of_a_long_id(server: AppState) -> None:
    long = "resp_" + "x" * 10_000

    async def run() -> None:
        async with running(server) as client:
            errors = [
                await client.create("Hi", 400, previous_response_id=long),
                await client.create("Hi", 404, conversation=long),
                await client.create([{"type": "item_reference", "id": long}], 400),
                await client.get(f"/v1/responses/{long}", 404),
            ]
            assert all(len(each["error"]["message"]) < 200 for each in errors)
            assert all("'resp_xxx" in each["error"]["message"] for each in errors)

    asyncio.run(run())


def test_a_response_that_is_not_stored_is_not_found(server: AppState) -> None:
    async def run() -> None:
        async with running(server) as client:
            response = await client.create(store=False)
            assert response["store"] is False
            await client.get(f"/v1/responses/{response['id']}", 404)
            error = (await client.create("Hi", 400, store=False, background=True))["error"]
            assert error["param"] == "background"

    asyncio.run(run())


def test_a_stream_is_stored_before_it_ends(server: AppState) -> None:
    async def run() -> None:
        async with running(server) as client:
            body = {"model": "m", "input": "Hi", "stream": True}
            events = await client.events("POST", "/v1/responses", json=body)
            response = events[-1]["response"]
            assert (events[-1]["type"], response["store"]) == ("response.completed", True)
            assert await client.get(f"/v1/responses/{response['id']}") == response

    asyncio.run(run())


def test_only_its_owner_finds_a_response(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("ann: key-of-ann\nann: other-key-of-ann\nbob: key-of-bob\n")
    (tmp_path / "data").mkdir(mode=0o700)

    async def run() -> None:
        api_keys = ApiKeys()
        api_keys.load(keys)
        server = responses_server(tmp_path / "data", config={"keys": api_keys})

        def of(key: str) -> dict[str, Any]:
            return {"headers": {"authorization": f"Bearer {key}"}}

        async with running(server) as client:
            body = {"model": "m", "input": "Hi"}
            response = await client.call("POST", "/v1/responses", json=body, **of("key-of-ann"))
            conversation = await client.call("POST", "/v1/conversations", json={}, **of("key-of-ann"))
            paths = [
                ("GET", f"/v1/responses/{response['id']}", None),
                ("GET", f"/v1/responses/{response['id']}?stream=true", None),
                ("GET", f"/v1/responses/{response['id']}/input_items", None),
                ("POST", f"/v1/responses/{response['id']}/cancel", None),
                ("DELETE", f"/v1/responses/{response['id']}", None),
                ("GET", f"/v1/conversations/{conversation['id']}", None),
                ("GET", f"/v1/conversations/{conversation['id']}/items", None),
                ("POST", f"/v1/conversations/{conversation['id']}", {"metadata": {}}),
                ("POST", f"/v1/conversations/{conversation['id']}/items", {"items": []}),
                ("DELETE", f"/v1/conversations/{conversation['id']}", None),
                ("POST", "/v1/responses", {**body, "conversation": conversation["id"]}),
            ]
            for method, path, sent in paths:
                foreign = await client.call(method, path, 404, json=sent, **of("key-of-bob"))
                unknown = path.replace(response["id"], "x").replace(conversation["id"], "x")
                other = {**sent, "conversation": "x"} if sent and "conversation" in sent else sent
                missing = await client.call(method, unknown, 404, json=other, **of("key-of-bob"))
                assert str(foreign).replace(response["id"], "x").replace(conversation["id"], "x") == str(
                    missing
                )
            await client.call("GET", paths[0][1], **of("other-key-of-ann"))
            await client.call("GET", paths[0][1], 401)

    asyncio.run(run())


def test_input_items_have_pages(server: AppState) -> None:
    given = [{"role": "user", "content": f"{number}"} for number in range(5)]

    async def run() -> None:
        async with running(server) as client:
            path = f"/v1/responses/{(await client.create(given))['id']}/input_items"
            newest = await client.get(path, limit=2)
            assert (texts(newest["data"]), newest["has_more"]) == (["user: 4", "user: 3"], True)
            assert (newest["first_id"], newest["last_id"]) == tuple(item["id"] for item in newest["data"])
            rest = await client.get(path, after=newest["last_id"])
            assert (texts(rest["data"]), rest["has_more"]) == (["user: 2", "user: 1", "user: 0"], False)
            oldest = await client.get(path, order="asc", limit=1)
            assert texts(oldest["data"]) == ["user: 0"]
            between = await client.get(path, order="asc", after=oldest["last_id"], before=newest["last_id"])
            assert texts(between["data"]) == ["user: 1", "user: 2"]
            for params in ({"after": "msg_x"}, {"limit": 0}, {"limit": 101}, {"order": "up"}):
                [name] = params
                assert (await client.get(path, 400, **params))["error"]["param"] == name

    asyncio.run(run())


def test_items_are_referred_to_by_their_ids(server: AppState) -> None:
    async def run() -> None:
        async with running(server) as client:
            first = await client.create("Hi")
            message = first["output"][0]["id"]
            given = [{"type": "item_reference", "id": message}, {"role": "user", "content": "Go on"}]
            second = await client.create(given)
            assert client.prompt() == "<assistant>Hello world!<user>Go on<assistant>"
            items = await client.get(f"/v1/responses/{second['id']}/input_items", order="asc")
            assert items["data"][0]["id"] == message
            given[0]["id"] = "msg_unknown"
            error = (await client.create(given, 400))["error"]
            assert (error["param"], error["code"]) == ("input[0].id", "item_not_found")

    asyncio.run(run())


def test_calls_and_reasoning_are_continued(tmp_path: Path) -> None:
    words = ("hm|", "[f:{", '"a":1}]')
    tools = [{"type": "function", "name": "f", "parameters": {"type": "object"}}]

    async def run() -> None:
        async with running(responses_server(tmp_path, words, reasoning=FakeReasoningParser)) as client:
            first = await client.create("Hi", tools=tools)
            reasoning, call = first["output"]
            assert (reasoning["type"], call["type"]) == ("reasoning", "function_call")
            output = {"type": "function_call_output", "call_id": call["call_id"], "output": "42"}
            second = await client.create([output], previous_response_id=first["id"], tools=tools)
            assert second["status"] == "completed"
            assert "42" in client.prompt()

    asyncio.run(run())


def test_a_request_counts_the_tokens_of_what_it_continues(server: AppState) -> None:
    async def run() -> None:
        async with running(server) as client:
            first = await client.create("Hi")
            body = {"model": "m", "input": "Go", "previous_response_id": first["id"]}
            counted = await client.call("POST", "/v1/responses/input_tokens", json=body)
            second = await client.create("Go", previous_response_id=first["id"])
            assert counted["input_tokens"] == second["usage"]["input_tokens"] > 20

    asyncio.run(run())


def test_a_synchronous_response_has_no_stream_and_is_not_cancelled(server: AppState) -> None:
    async def run() -> None:
        async with running(server) as client:
            path = f"/v1/responses/{(await client.create('Hi'))['id']}"
            assert (await client.get(path, 400, stream=True))["error"]["param"] == "stream"
            error = (await client.call("POST", f"{path}/cancel", 400))["error"]
            assert "synchronous" in error["message"]

    asyncio.run(run())


def test_a_server_without_a_store_says_so(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(responses_server(tmp_path, options={"store": False})) as client:
            assert (await client.create())["store"] is False
            for body in ({"store": True}, {"previous_response_id": "resp_1"}, {"background": True}):
                [name] = body
                assert (await client.create("Hi", 400, **body))["error"]["param"] == name
            assert "store" in (await client.get("/v1/responses/resp_1", 404))["error"]["message"]
            await client.call("POST", "/v1/conversations", 404, json={})
        assert list(tmp_path.iterdir()) == []

    asyncio.run(run())


def test_without_a_data_directory_responses_are_in_memory(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with running(responses_server(None)) as client:
            first = await client.create("Hi")
            await client.create("Go", previous_response_id=first["id"])

    asyncio.run(run())
    assert "lost when the server stops: there is no home directory" in caplog.text


def test_a_full_disk_fails_the_request_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = stores_opened(monkeypatch)
    large = {str(number): 512 * "x" for number in range(16)}

    async def run() -> None:
        async with running(responses_server(tmp_path)) as client:
            first = await client.create("Hi")
            async with full_disk(opened[0]):
                error = (await client.create("Hi", 507, metadata=large))["error"]
                assert (error["type"], error["message"]) == (
                    "server_error",
                    "the disk of this server is full, so nothing can be stored",
                )
                body = {"model": "m", "input": "Hi", "stream": True, "metadata": large}
                events = await client.events("POST", "/v1/responses", json=body)
                assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
                assert "disk" in events[-1]["response"]["error"]["message"]
                assert await client.get(f"/v1/responses/{first['id']}") == first
                assert (await client.create("Hi", store=False))["status"] == "completed"
            await client.create("Hi", metadata=large)

    asyncio.run(run())


def test_what_is_stored_is_encrypted_with_a_key(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    options = {"store_key_file": str(key)}
    data = tmp_path / "data"

    async def run() -> None:
        async with running(responses_server(data, options=options)) as client:
            first = await client.create("a secret", metadata={"name": "another secret"})
        content = b"".join(file.read_bytes() for file in data.iterdir())
        assert not [text for text in (b"secret", b"Hello") if text in content]
        async with running(responses_server(data, options={"store_key": "ab" * 32})) as client:
            assert await client.get(f"/v1/responses/{first['id']}") == first

    asyncio.run(run())
    for other, message in (
        ({"store_key": "cd" * 32}, "encrypted with another key"),
        ({}, "is encrypted: give its key"),
    ):
        with pytest.raises(ConfigError, match=message):
            create_app(responses_server(data, options=other))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"store_ttl": "30"}, "expected a number of seconds, minutes, hours or days"),
        ({"store_ttl": "0d"}, "expected a number of seconds"),
        ({"store_size": "much"}, "expected a size such as 2GiB"),
        ({"store_key": "a", "store_key_file": "b"}, "exclude each other"),
        ({"store_key": "short"}, "not a key of 32 bytes"),
        ({"store_key_file": "nowhere"}, "cannot be read: nowhere"),
        ({"max_background": 0}, "at least 1"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        responses_server(None, options=options)


def test_a_stream_that_its_client_leaves_is_stored_as_cancelled(tmp_path: Path) -> None:
    body = json.dumps({"model": "m", "input": "Hi", "stream": True}).encode()

    async def run() -> None:
        async with running(responses_server(tmp_path, gated=True)) as client:
            sent, left = asyncio.Queue[bytes](), asyncio.Event()
            messages = [{"type": "http.request", "body": body, "more_body": False}]

            async def receive() -> Any:
                if not messages:
                    await left.wait()
                    return {"type": "http.disconnect"}
                return messages.pop()

            async def send(message: Any) -> None:
                sent.put_nowait(message.get("body", b""))

            scope = {**COMPLETION_SCOPE, "path": "/v1/responses", "raw_path": b"/v1/responses"}
            request = asyncio.create_task(client.app(scope, receive, send))  # type: ignore[arg-type]
            while b"response.created" not in (event := await sent.get()):
                pass
            response_id = json.loads(event.partition(b"data: ")[2].partition(b"\n")[0])["response"]["id"]
            await client.get(f"/v1/responses/{response_id}", 404)
            left.set()
            await request
            response = await client.get(f"/v1/responses/{response_id}")
            assert (response["status"], response["output"][0]["status"]) == ("cancelled", "incomplete")
            assert response["output"][0]["content"][0]["text"] == "Hello"
            assert client.backend.aborted

    asyncio.run(run())


def test_a_body_that_is_damaged_is_not_served(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(responses_server(tmp_path)) as client:
            response = await client.create("Hi")
            conversation = await client.call("POST", "/v1/conversations", json={"items": [MESSAGE]})
            with closing(sqlite3.connect(client.file)) as connection:
                connection.execute("UPDATE records SET body = x'7bff' WHERE parent != ''")
                connection.execute("UPDATE records SET body = x'7b22ff22' WHERE kind = 'conversation'")
                connection.commit()
            path = f"/v1/responses/{response['id']}"
            for damaged in (path, f"{path}/input_items", f"/v1/conversations/{conversation['id']}"):
                assert "damaged" in (await client.get(damaged, 503))["error"]["message"]
            await client.create("Go", 503, previous_response_id=response["id"])
            await client.create("Go")

    asyncio.run(run())


def test_the_items_of_a_large_request_do_not_occupy_the_event_loop(
    server: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()
    complete = items._complete

    def completed(*arguments: Any) -> Any:
        threads.add(threading.get_ident())
        return complete(*arguments)

    monkeypatch.setattr(items, "_complete", completed)
    given = [{"role": "user", "content": [{"type": "input_text", "text": ""}]}] * 100

    async def run() -> None:
        async with running(server) as client:
            await client.create(given * 100, 400)
            assert not threads, "what is refused is not stored"
            response = await client.create([*given, {"role": "user", "content": "Hi"}], truncation="auto")
            assert threads.isdisjoint({threading.get_ident()})
            found = await client.get(f"/v1/responses/{response['id']}/input_items", limit=1)
            assert texts(found["data"]) == ["user: Hi"]

    asyncio.run(run())


def test_a_long_conversation_does_not_occupy_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The body that continues it is small."""
    threads: list[int] = []

    def recorded(work: Callable[..., Pieces[Any]]) -> Callable[..., Pieces[Any]]:
        def record(*arguments: Any, **options: Any) -> Pieces[Any]:
            threads.append(threading.get_ident())
            return (yield from work(*arguments, **options))

        return record

    async def run() -> None:
        async with running(responses_server(None, card={"max_model_len": 8192})) as client:
            first = await client.create("x")
            long = await client.create([{"role": "user", "content": "x" * 50}] * 100)
            for module, name in ((new_generation, "read_in_pieces"), (request_serving, "prepare_chat")):
                monkeypatch.setattr(module, name, recorded(getattr(module, name)))
            await client.create("Go", previous_response_id=first["id"])
            assert threads == [threading.get_ident()] * 2
            threads.clear()
            await client.create("Go", previous_response_id=long["id"])
            assert len(threads) == 2
            assert threading.get_ident() not in threads

    asyncio.run(run())


def test_too_much_is_not_read_to_be_continued(server: AppState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_records, "MAX_CONTEXT_BYTES", 1500)

    async def run() -> None:
        async with running(server) as client:
            first = await client.create("Hi")
            second = await client.create("Hi", previous_response_id=first["id"])
            error = (await client.create("Hi", 400, previous_response_id=second["id"]))["error"]
            assert (error["param"], error["code"]) == ("previous_response_id", "context_length_exceeded")
            long = {"role": "user", "content": "x" * 400}
            conversation = await client.call("POST", "/v1/conversations", json={"items": [long]})
            await client.create("Hi", conversation=conversation["id"])
            error = (await client.create("Hi", 400, conversation=conversation["id"]))["error"]
            assert (error["param"], error["code"]) == ("conversation", "context_length_exceeded")

    asyncio.run(run())
