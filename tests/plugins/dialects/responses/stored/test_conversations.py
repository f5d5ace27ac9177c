"""Conversations: created, changed and continued by responses."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI
from support.api_fakes import app_of
from support.stored_responses import responses_server, running

from fllm_api.app_state import AppState
from fllm_dialects.responses.stored.response_records import MAX_REFERENCES
from fllm_dialects.store import Records

SIZES = (100, 400, 2000, 10)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> AppState:
    """Return a server that is started by each test that uses it."""
    return responses_server(tmp_path_factory.mktemp("data"))


def texts(items: list[dict[str, Any]]) -> list[str]:
    """Return the role and the text of each item."""
    return [f"{item['role']}: {item['content'][0]['text']}" for item in items]


def test_a_conversation_is_created_changed_and_deleted(server: AppState) -> None:
    async def run() -> None:
        async with running(server) as client:
            items = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
            body = {"items": items, "metadata": {"topic": "x"}}
            made = await client.call("POST", "/v1/conversations", json=body)
            path = f"/v1/conversations/{made['id']}"
            assert (made["object"], made["metadata"]) == ("conversation", {"topic": "x"})
            assert await client.get(path) == made
            changed = await client.call("POST", path, json={"metadata": {"topic": "y"}})
            assert changed == {**made, "metadata": {"topic": "y"}} == await client.get(path)
            assert texts((await client.get(f"{path}/items"))["data"]) == ["assistant: b", "user: a"]
            deleted = {"id": made["id"], "object": "conversation.deleted", "deleted": True}
            assert await client.call("DELETE", path) == deleted
            for method, missing in (("GET", path), ("DELETE", path), ("GET", f"{path}/items")):
                error = (await client.call(method, missing, 404))["error"]
                assert error["message"] == f"Conversation with id '{made['id']}' not found."

    asyncio.run(run())


def test_items_are_added_listed_read_and_deleted(server: AppState) -> None:
    async def run() -> None:
        async with running(server) as client:
            made = await client.call("POST", "/v1/conversations", json={})
            path = f"/v1/conversations/{made['id']}/items"
            given = [{"role": "user", "content": str(number)} for number in range(5)]
            added = await client.call("POST", path, json={"items": given})
            ids = [item["id"] for item in added["data"]]
            assert texts(added["data"]) == [f"user: {number}" for number in range(5)]
            listed = await client.get(path, limit=2, order="asc", after=ids[0])
            assert ([item["id"] for item in listed["data"]], listed["has_more"]) == (ids[1:3], True)
            assert (listed["first_id"], listed["last_id"]) == (ids[1], ids[2])
            assert await client.get(f"{path}/{ids[3]}") == added["data"][3]
            assert await client.call("DELETE", f"{path}/{ids[3]}") == made
            assert (await client.get(f"{path}/{ids[3]}", 404))["error"]["message"].startswith("Item with id")
            remaining = await client.get(path, order="asc")
            assert [item["id"] for item in remaining["data"]] == [*ids[:3], ids[4]]
            again = await client.call("POST", path, json={"items": added["data"][:1]})
            assert again["data"][0]["id"] not in ids

    asyncio.run(run())


def test_invalid_items_are_refused(server: AppState) -> None:
    message = {"role": "user", "content": "a"}
    cases = [
        ([message] * 21, "items"),
        ([message, {"role": "robot", "content": "a"}], "items[1].role"),
        ([{"type": "item_reference", "id": "msg_1"}], "items[0]"),
        ([{"type": "web_search_call"}], "items[0].type"),
        ([{"type": "function_call", "name": "f", "arguments": "{}"}], "items[0].call_id"),
        ("a", "items"),
    ]

    async def run() -> None:
        async with running(server) as client:
            made = await client.call("POST", "/v1/conversations", json={})
            for items, param in cases:
                for path in ("/v1/conversations", f"/v1/conversations/{made['id']}/items"):
                    error = (await client.call("POST", path, 400, json={"items": items}))["error"]
                    assert error["param"] == param, items
            error = (await client.call("POST", "/v1/conversations", 400, json={"metadata": {"a": 1}}))[
                "error"
            ]
            assert error["param"] == "metadata[...]"
            assert (await client.get(f"/v1/conversations/{made['id']}/items"))["data"] == []

    asyncio.run(run())


def test_large_items_have_shorter_pages(server: AppState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fllm_dialects.responses.stored.pages.MAX_PAGE_BYTES", 1000)

    async def run() -> None:
        async with running(server) as client:
            items = [
                {"role": "user", "content": letter * size} for letter, size in zip("abcd", SIZES, strict=True)
            ]
            made = await client.call("POST", "/v1/conversations", json={"items": items})
            path, pages, after, more = f"/v1/conversations/{made['id']}/items", [], "", True
            while more:
                page = await client.get(path, order="asc", after=after)
                pages.append([item["content"][0]["text"][0] for item in page["data"]])
                after, more = page["last_id"], page["has_more"]
            assert pages == [["a", "b"], ["c"], ["d"]]

    asyncio.run(run())


def test_what_is_too_large_to_continue_is_not_read(server: AppState, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with running(server) as client:
            items = [{"role": "user", "content": "x" * 100} for _ in range(3)]
            made = await client.call("POST", "/v1/conversations", json={"items": items})
            found = (await client.get(f"/v1/conversations/{made['id']}/items"))["data"]
            earlier = (await client.create(items))["id"]
            read, children = [], Records.children

            async def recorded(self: Records, *args: Any, **kinds: Any) -> Any:
                read.append(args)
                return await children(self, *args, **kinds)

            monkeypatch.setattr("fllm_dialects.responses.stored.response_records.MAX_CONTEXT_BYTES", 300)
            monkeypatch.setattr(Records, "children", recorded)
            references = [{"type": "item_reference", "id": item["id"]} for item in found]
            for given, field, value in (
                ("x", "conversation", made["id"]),
                ("x", "previous_response_id", earlier),
                (references, "input", references),
            ):
                body = await client.create(given, 400, **({} if field == "input" else {field: value}))
                assert (body["error"]["param"], body["error"]["code"]) == (field, "context_length_exceeded")
            assert read == []
            many = [{"type": "item_reference", "id": f"msg_{index}"} for index in range(MAX_REFERENCES + 1)]
            assert (await client.create(many, 400))["error"]["param"] == "input"

    asyncio.run(run())


def test_a_response_continues_a_conversation_and_is_added_to_it(server: AppState) -> None:
    async def run() -> None:
        async with running(server) as client:
            items = [{"role": "user", "content": "a"}]
            made = await client.call("POST", "/v1/conversations", json={"items": items})
            path = f"/v1/conversations/{made['id']}/items"
            first = await client.create("b", conversation=made["id"], store=False)
            assert first["conversation"] == {"id": made["id"]}
            assert client.prompt() == "<user>a<user>b<assistant>"
            body = {"model": "m", "input": "c", "conversation": {"id": made["id"]}, "stream": True}
            await client.events("POST", "/v1/responses", json=body)
            assert client.prompt() == "<user>a<user>b<assistant>Hello world!<user>c<assistant>"
            background = await client.create("d", conversation=made["id"], background=True)
            await client.until(background["id"], "completed")
            answer = "assistant: Hello world!"
            listed = (await client.get(path, order="asc"))["data"]
            assert texts(listed) == ["user: a", "user: b", answer, "user: c", answer, "user: d", answer]
            for body in (
                {"previous_response_id": background["id"]},
                {"previous_response_id": "resp_1", "conversation": made["id"]},
            ):
                assert (await client.create("e", 400, **body))["error"]["param"] == "previous_response_id"
            error = (await client.create("e", 404, conversation="conv_1"))["error"]
            assert (error["param"], error["code"]) == ("conversation", "conversation_not_found")

    asyncio.run(run())


def test_a_failed_response_adds_nothing_and_a_deleted_conversation_harms_none(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(responses_server(tmp_path, gated=True)) as client:
            made = await client.call("POST", "/v1/conversations", json={})
            background = await client.create("d", conversation=made["id"], background=True)
            await client.until(background["id"], "in_progress")
            await client.call("POST", f"/v1/responses/{background['id']}/cancel")
            assert (await client.get(f"/v1/conversations/{made['id']}/items"))["data"] == []
            response = asyncio.create_task(client.create("d", conversation=made["id"]))
            while not client.backend.prompts[1:]:
                await asyncio.sleep(0.01)
            await client.call("DELETE", f"/v1/conversations/{made['id']}")
            client.backend.gate.set()
            assert (await response)["status"] == "completed"

    asyncio.run(run())


def test_openais_library_stores_continues_and_resumes(server: AppState) -> None:
    async def use(api: AsyncOpenAI) -> None:
        conversation = await api.conversations.create(items=[{"role": "user", "content": "a"}])
        first = await api.responses.create(model="m", input="b", conversation=conversation.id)
        assert (await api.responses.retrieve(first.id)).output_text == "Hello world!"
        listed = [item async for item in api.conversations.items.list(conversation.id, limit=1)]
        assert len(listed) == 3
        items = [item async for item in api.responses.input_items.list(first.id)]
        assert [item.type for item in items] == ["message"]
        stream = await api.responses.create(model="m", input="b", background=True, stream=True)
        events = [event async for event in stream]
        response = events[-1].response  # type: ignore[union-attr]
        resumed = await api.responses.retrieve(response.id, stream=True, starting_after=4)
        assert [event async for event in resumed] == events[5:]
        assert (await api.responses.cancel(response.id)).status == "completed"
        await api.responses.delete(response.id)
        assert (await api.conversations.update(conversation.id, metadata={"a": "b"})).metadata == {"a": "b"}
        assert (await api.conversations.delete(conversation.id)).deleted

    async def run() -> None:
        app = app_of(server)
        async with app.lifespan(), httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http:
            await use(AsyncOpenAI(base_url="http://test/v1", api_key="x", http_client=http))

    asyncio.run(run())
