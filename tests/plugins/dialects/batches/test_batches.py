"""`/v1/batches` over ASGI."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.api_fakes import Recorder, backend_of, error_of
from support.batch_server import (
    CHAT,
    CHAT_BODY,
    BatchClient,
    a_batch_server,
    batch_plugins,
    lines,
    run,
    serving_batches,
)
from support.served_models import two_models

from fllm import BACKGROUND_PRIORITY
from fllm_api.api_keys import ApiKeys
from fllm_api.app_state import AppState
from fllm_api.config import RateLimits
from fllm_dialects.batches import run as batch_run
from fllm_dialects.batches import service
from fllm_dialects.batches.input_file import check_input
from fllm_dialects.store import Records, StoreFull

SHORT = lines("short", body={**CHAT_BODY, "max_tokens": 1})
"""A request that ends although the backend stalls after its first step."""


@pytest.fixture
def server(tmp_path: Path) -> AppState:
    """Return a server that keeps files and batches."""
    return a_batch_server(config={"data_dir": tmp_path})


def test_every_request_has_a_line_of_output(tmp_path: Path) -> None:
    recorder = Recorder()
    server = a_batch_server(config={"data_dir": tmp_path}, collectors=[recorder])

    async def work(client: BatchClient) -> None:
        batch = await client.create(lines("a", "b", "c"), metadata={"k": "v"})
        assert batch["object"] == "batch"
        assert (batch["status"], batch["errors"], batch["output_file_id"]) == ("validating", None, None)
        assert batch["expires_at"] == batch["created_at"] + 86400
        batch = await client.finish(batch["id"])
        assert batch["status"] == "completed"
        assert batch["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
        assert batch["metadata"] == {"k": "v"}
        assert batch["error_file_id"] is None
        times = [batch[f"{name}_at"] for name in ("created", "in_progress", "finalizing", "completed")]
        assert times == sorted(times)
        assert [batch[f"{name}_at"] for name in ("failed", "expired", "cancelling", "cancelled")] == [
            None
        ] * 4
        output = await client.lines(batch["output_file_id"])
        assert sorted(output) == ["a", "b", "c"]
        line = output["b"]
        assert set(line) == {"id", "custom_id", "response", "error"}
        assert (line["error"], line["response"]["status_code"]) == (None, 200)
        assert line["response"]["request_id"] in {each.request_id for each in recorder.requests}
        message = line["response"]["body"]["choices"][0]["message"]
        assert message["content"] == "Hello world!"
        file = await client.get(f"/v1/files/{batch['output_file_id']}")
        assert (file["purpose"], file["filename"]) == ("batch_output", f"{batch['id']}_output.jsonl")
        assert {each.priority for each in backend_of(server).prompts} == {BACKGROUND_PRIORITY}
        response = await client.http.post(f"/v1/batches/{batch['id']}/cancel")
        assert response.status_code == 409
        assert error_of(response)["message"] == "the batch can't be cancelled: it is completed"

    run(server, work)


def test_requests_that_fail_are_in_the_error_file(server: AppState) -> None:
    async def work(client: BatchClient) -> None:
        wrong = lines("b", body={**CHAT_BODY, "max_tokens": "x"}) + lines("c", body={**CHAT_BODY, "stop": 5})
        batch = await client.finish((await client.create(lines("a") + wrong))["id"])
        assert batch["status"] == "completed"
        assert batch["request_counts"] == {"total": 3, "completed": 1, "failed": 2}
        assert list(await client.lines(batch["output_file_id"])) == ["a"]
        errors = await client.lines(batch["error_file_id"])
        assert sorted(errors) == ["b", "c"]
        response = errors["b"]["response"]
        assert (response["status_code"], response["body"]["error"]["param"]) == (400, "max_tokens")

        text = lines("a", url="/v1/completions", body={"model": "m", "prompt": "Hi"})
        batch = await client.finish((await client.create(text, "/v1/completions"))["id"])
        [line] = (await client.lines(batch["output_file_id"])).values()
        assert line["response"]["body"]["choices"][0]["text"] == "Hello world!"

    run(server, work)


def test_an_invalid_file_fails_the_batch_before_any_request_runs(server: AppState) -> None:
    async def work(client: BatchClient) -> None:
        text = lines("a", "a") + "nothing\n" + lines("b", body={**CHAT_BODY, "stream": True})
        batch = await client.finish((await client.create(text))["id"])
        assert (batch["status"], batch["in_progress_at"], batch["output_file_id"]) == ("failed", None, None)
        assert batch["failed_at"] >= batch["created_at"]
        assert [(each["line"], each["code"], each["param"]) for each in batch["errors"]["data"]] == [
            (2, "duplicate_custom_id", "custom_id"),
            (3, "invalid_json_line", None),
            (4, "invalid_request", "body.stream"),
        ]
        assert batch["errors"]["object"] == "list"
        assert backend_of(server).prompts == []

    run(server, work)


def test_a_wrong_request_for_a_batch_is_refused(server: AppState) -> None:
    async def work(client: BatchClient) -> None:
        file = (await client.upload(lines("a"))).json()
        valid = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}

        async def refused(status: int, param: str | None, **changes: Any) -> None:
            body = {name: value for name, value in {**valid, **changes}.items() if value is not None}
            response = await client.http.post("/v1/batches", json=body)
            assert (response.status_code, error_of(response)["param"]) == (status, param)

        await refused(404, "input_file_id", input_file_id="file-x")
        await refused(400, "input_file_id", input_file_id=None)
        for endpoint in ("/v1/embeddings", "/v1/files", "/v1/batches", "/health", ""):
            await refused(400, "endpoint", endpoint=endpoint)
        await refused(400, "completion_window", completion_window="1h")
        await refused(400, "metadata[...]", metadata={"k": 5})
        await refused(400, "metadata", metadata={str(i): "" for i in range(17)})
        await refused(
            400, "output_expires_after.seconds", output_expires_after={"anchor": "created_at", "seconds": 1}
        )
        await refused(400, None, more=1)
        batch = await client.finish((await client.create(lines("a")))["id"])
        await refused(400, "input_file_id", input_file_id=batch["output_file_id"])
        for method, path in (("GET", ""), ("POST", "/cancel")):
            response = await client.http.request(method, f"/v1/batches/batch_x{path}")
            assert (response.status_code, error_of(response)["code"]) == (404, "batch_not_found")

    run(server, work)


def test_batches_have_pages_and_belong_to_a_key(tmp_path: Path) -> None:
    server = a_batch_server(config={"data_dir": tmp_path, "keys": ApiKeys(["one", "two"])})

    async def work(client: BatchClient) -> None:
        ids = [(await client.create(lines("a")))["id"] for _ in range(3)]
        page = await client.get("/v1/batches?limit=2")
        assert [each["id"] for each in page["data"]] == [ids[2], ids[1]]
        assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[2], ids[1], True)
        page = await client.get(f"/v1/batches?limit=2&after={ids[1]}")
        assert ([each["id"] for each in page["data"]], page["has_more"]) == ([ids[0]], False)
        for query in ("limit=0", "limit=101", "after=batch_x"):
            assert (await client.http.get(f"/v1/batches?{query}")).is_client_error
        other = {"authorization": "Bearer two"}
        assert (await client.http.get("/v1/batches", headers=other)).json()["data"] == []
        for method, path in (("GET", ""), ("POST", "/cancel")):
            response = await client.http.request(method, f"/v1/batches/{ids[0]}{path}", headers=other)
            assert response.status_code == 404
        for each in ids:
            assert (await client.finish(each))["status"] == "completed"

    run(server, work, authorization="Bearer one")


def test_a_cancelled_batch_keeps_its_results_and_names_what_did_not_run(server: AppState) -> None:
    backend = backend_of(server)
    backend.stalls_after = 1

    async def work(client: BatchClient) -> None:
        batch = await client.create(SHORT + lines(*"abcdefgh"))
        await client.until(batch["id"], lambda each: each["request_counts"]["completed"] == 1)
        while len(backend.prompts) < 5:  # one has ended, four run
            await asyncio.sleep(0)
        response = await client.http.post(f"/v1/batches/{batch['id']}/cancel")
        assert (response.status_code, response.json()["status"]) == (200, "cancelling")
        batch = await client.finish(batch["id"])
        assert batch["status"] == "cancelled"
        assert batch["cancelled_at"] >= batch["cancelling_at"] >= batch["in_progress_at"]
        assert batch["request_counts"] == {"total": 9, "completed": 1, "failed": 8}
        assert list(await client.lines(batch["output_file_id"])) == ["short"]
        errors = await client.lines(batch["error_file_id"])
        assert sorted(errors) == list("abcdefgh")
        assert {each["error"]["code"] for each in errors.values()} == {"batch_cancelled"}
        assert {each["response"] for each in errors.values()} == {None}
        assert (len(backend.prompts), len(backend.aborted)) == (5, 4)
        assert (await client.http.post(f"/v1/batches/{batch['id']}/cancel")).json() == batch

    run(server, work)


def test_a_batch_that_is_cancelled_while_it_is_checked_names_what_did_not_run(
    server: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def check_later(*arguments: Any) -> Any:
        release.wait(10)
        return check_input(*arguments)

    monkeypatch.setattr(batch_run, "check_input", check_later)

    async def work(client: BatchClient) -> None:
        batch = await client.create(lines("a", "b"))
        cancelled = await client.http.post(f"/v1/batches/{batch['id']}/cancel")
        assert cancelled.json()["status"] == "cancelling"
        release.set()
        batch = await client.finish(batch["id"])
        assert (batch["status"], batch["request_counts"]["total"]) == ("cancelled", 2)
        assert sorted(await client.lines(batch["error_file_id"])) == ["a", "b"]

    run(server, work)


def interrupted_batch(data_dir: Path) -> Any:
    """Return a batch in progress whose server has stopped."""
    created: list[Any] = []

    async def start(client: BatchClient) -> None:
        created.append(await client.create(SHORT + lines("a", "b")))
        await client.until(created[0]["id"], lambda each: each["request_counts"]["completed"] == 1)

    server = a_batch_server(config={"data_dir": data_dir})
    backend_of(server).stalls_after = 1
    run(server, start)
    return created[0]


def test_a_batch_whose_input_is_gone_fails_with_the_results_that_it_has(tmp_path: Path) -> None:
    batch = interrupted_batch(tmp_path)
    [path] = tmp_path.rglob(batch["input_file_id"])
    path.unlink()

    async def work(client: BatchClient) -> None:
        ended = await client.finish(batch["id"])
        assert ended["status"] == "failed"
        assert [each["code"] for each in ended["errors"]["data"]] == ["storage_error"]
        assert list(await client.lines(ended["output_file_id"])) == ["short"]

    run(a_batch_server(config={"data_dir": tmp_path}), work)


def test_a_file_that_a_batch_of_another_server_needs_is_kept(tmp_path: Path) -> None:
    stalled = a_batch_server(config={"data_dir": tmp_path})
    backend_of(stalled).stalls_after = 1

    async def work(client: BatchClient) -> None:
        batch = await client.create(lines("a", "b"))
        path = f"/v1/files/{batch['input_file_id']}"
        async with serving_batches(a_batch_server(config={"data_dir": tmp_path})) as other:
            assert (await other.http.delete(path)).status_code == 409
        await client.http.post(f"/v1/batches/{batch['id']}/cancel")
        await client.finish(batch["id"])
        deleted = await asyncio.gather(*(client.http.delete(path) for _ in range(4)))
        assert sorted(each.status_code for each in deleted) == [200, 404, 404, 404]

    run(stalled, work)


def test_a_server_starts_whose_store_fails_and_continues_batches_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = interrupted_batch(tmp_path)
    claim, failures = Records.claim, [StoreFull(detail="full"), StoreFull(detail="full")]

    async def claim_later(*arguments: Any, **named: Any) -> Any:
        claimed = await claim(*arguments, **named)
        if failures:
            raise failures.pop()
        return claimed

    monkeypatch.setattr(Records, "claim", claim_later)
    monkeypatch.setattr(service, "MAINTENANCE_INTERVAL", 0.01)
    run(a_batch_server(config={"data_dir": tmp_path}), lambda client: client.finish(batch["id"]))
    assert not failures


def test_a_server_starts_with_a_batch_that_cannot_be_read(tmp_path: Path) -> None:
    batch = interrupted_batch(tmp_path)
    with closing(sqlite3.connect(tmp_path / "batches.sqlite3")) as connection:
        connection.execute("UPDATE records SET body = x'7b22ff' WHERE kind = 'batch'")
        connection.commit()

    async def work(client: BatchClient) -> None:
        assert (await client.http.get(f"/v1/batches/{batch['id']}")).status_code == 503
        await client.finish((await client.create(lines("a")))["id"])

    run(a_batch_server(config={"data_dir": tmp_path}), work)


def test_a_server_that_stops_checks_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started, release, checked = threading.Event(), threading.Event(), []

    def check_later(*arguments: Any) -> Any:
        checked.append(arguments)
        started.set()
        release.wait(10)
        return check_input(*arguments)

    monkeypatch.setattr(batch_run, "check_input", check_later)
    created: list[Any] = []

    async def create(client: BatchClient) -> None:
        created.extend([await client.create(lines("a")) for _ in range(3)])
        await asyncio.to_thread(started.wait, 10)
        asyncio.get_running_loop().call_later(0.1, release.set)

    run(a_batch_server(config={"data_dir": tmp_path}), create)
    assert len(checked) == 1

    async def finish(client: BatchClient) -> None:
        for batch in created:
            assert (await client.finish(batch["id"]))["status"] == "completed"

    run(a_batch_server(config={"data_dir": tmp_path}), finish)


def test_a_batch_that_takes_too_long_expires(server: AppState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "WINDOW", 2)
    backend_of(server).stalls_after = 1

    async def work(client: BatchClient) -> None:
        batch = await client.finish((await client.create(SHORT + lines("a", "b")))["id"])
        assert (batch["status"], batch["request_counts"]["completed"]) == ("expired", 1)
        assert batch["expired_at"] >= batch["expires_at"]
        assert list(await client.lines(batch["output_file_id"])) == ["short"]
        errors = await client.lines(batch["error_file_id"])
        assert {name: line["error"]["code"] for name, line in errors.items()} == dict.fromkeys(
            "ab", "batch_expired"
        )

    run(server, work)


def test_a_restarted_server_runs_only_what_is_not_done(tmp_path: Path) -> None:
    config = {"data_dir": tmp_path}
    created: list[Any] = []

    async def first(client: BatchClient) -> None:
        created.append(await client.create(SHORT + lines("a", "b")))
        await client.until(created[0]["id"], lambda each: each["request_counts"]["completed"] == 1)

    async def second(client: BatchClient) -> None:
        batch = await client.finish(created[0]["id"])
        assert batch["status"] == "completed"
        assert batch["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
        assert sorted(await client.lines(batch["output_file_id"])) == ["a", "b", "short"]

    async def third(client: BatchClient) -> None:
        batch = await client.get(f"/v1/batches/{created[0]['id']}")
        assert batch["status"] == "completed"
        assert len(await client.lines(batch["output_file_id"])) == 3

    stalled, going = a_batch_server(config=config), a_batch_server(config=config)
    backend_of(stalled).stalls_after = 1
    run(stalled, first)
    run(going, second)
    assert len(backend_of(going).prompts) == 2
    run(going, third)
    assert len(backend_of(going).prompts) == 2


def test_a_server_leaves_the_batches_of_another_to_it_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAINTENANCE_INTERVAL", 0.05)
    one, two = (a_batch_server(config={"data_dir": tmp_path}) for _ in range(2))
    backend_of(one).stalls_after = 1

    async def work(client: BatchClient) -> None:
        async with serving_batches(one) as other:
            batch = await other.create(lines("a"))
            while not backend_of(one).prompts:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            assert (await client.get(f"/v1/batches/{batch['id']}"))["status"] == "in_progress"
            response = await client.http.post(f"/v1/batches/{batch['id']}/cancel")
            assert (response.status_code, backend_of(two).prompts) == (409, [])
            assert "another server runs it" in error_of(response)["message"]
        batch = await client.finish(batch["id"])
        assert (batch["status"], len(backend_of(two).prompts)) == ("completed", 1)

    run(two, work)


def test_requests_name_their_models_and_other_routes_load_none(tmp_path: Path) -> None:
    server = two_models(plugins=batch_plugins(), config={"data_dir": tmp_path})

    async def go() -> None:
        async with server.app.lifespan(), server.client() as http:
            client = BatchClient(server.app, http)
            assert (await client.upload("x")).status_code == 200
            await client.get("/v1/batches")
            assert [each.state for each in server.pool.models] == ["unloaded", "unloaded"]
            text = "".join(lines(name, body={**CHAT_BODY, "model": name}) for name in "ab")
            batch = await client.finish((await client.create(text))["id"])
            output = await client.lines(batch["output_file_id"])
            assert {
                name: line["response"]["body"]["choices"][0]["message"]["content"]
                for name, line in output.items()
            } == {"a": "from a", "b": "from b"}

    asyncio.run(go())


def test_a_request_without_room_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_run, "FIRST_WAIT", 0.01)
    recorder = Recorder()
    server = a_batch_server(
        config={"data_dir": tmp_path, "limits": RateLimits(concurrency=1)}, collectors=[recorder]
    )

    async def work(client: BatchClient) -> None:
        batch = await client.finish((await client.create(lines(*"abcdef")))["id"])
        assert batch["request_counts"] == {"total": 6, "completed": 6, "failed": 0}
        assert 429 in {request.status for request in recorder.requests}
        assert {request.path for request in recorder.requests} == {CHAT}

    run(server, work)


def test_requests_of_clients_find_room_while_a_batch_runs(tmp_path: Path) -> None:
    server = a_batch_server(config={"data_dir": tmp_path, "limits": RateLimits(concurrency=1)})
    backend_of(server).stalls_after = 1

    async def work(client: BatchClient) -> None:
        await client.create(lines("a"))
        while not backend_of(server).prompts:
            await asyncio.sleep(0.01)
        response = await client.http.post(CHAT, json={**CHAT_BODY, "max_tokens": 1})
        assert response.status_code == 200

    run(server, work)


def test_a_client_has_a_maximum_of_batches_and_an_input_is_kept_while_it_is_needed(tmp_path: Path) -> None:
    server = a_batch_server(options={"max_batches": 1}, config={"data_dir": tmp_path})
    backend_of(server).stalls_after = 1

    async def work(client: BatchClient) -> None:
        batch = await client.create(lines("a"))
        body = {key: batch[key] for key in ("input_file_id", "endpoint", "completion_window")}
        response = await client.http.post("/v1/batches", json=body)
        assert (response.status_code, error_of(response)["code"]) == (429, "batch_limit_exceeded")
        response = await client.http.delete(f"/v1/files/{batch['input_file_id']}")
        assert response.status_code == 409
        await client.http.post(f"/v1/batches/{batch['id']}/cancel")
        await client.finish(batch["id"])
        assert (await client.http.delete(f"/v1/files/{batch['input_file_id']}")).status_code == 200

    run(server, work)


def test_results_expire_when_the_client_says_and_count_as_its_files(tmp_path: Path) -> None:
    server = a_batch_server(options={"max_client_bytes": 20_000}, config={"data_dir": tmp_path})

    async def first(client: BatchClient) -> None:
        expiry = {"anchor": "created_at", "seconds": 3600}
        batch = await client.finish((await client.create(lines("a"), output_expires_after=expiry))["id"])
        file = await client.get(f"/v1/files/{batch['output_file_id']}")
        assert file["expires_at"] == file["created_at"] + 3600
        assert (await client.upload("x" * 8000)).status_code == 413
        assert (await client.http.delete(f"/v1/files/{file['id']}")).status_code == 200
        assert (await client.upload("x" * 8000)).status_code == 200

    async def second(client: BatchClient) -> None:
        assert (await client.upload("x")).status_code == 413

    run(server, first)
    run(server, second)


def test_a_body_with_line_breaks_or_that_is_not_json_is_one_line() -> None:
    assert bytes(batch_run._one_line(b'{"a":\n 1}')) == b'{"a":1}'
    assert json.loads(bytes(batch_run._one_line(b"<html>\n\xff"))) == "<html>\n\ufffd"


def test_a_disabled_plugin_leaves_no_routes() -> None:
    from support.api_fakes import a_server, ask

    response: httpx.Response = ask(a_server(), "GET", "/v1/batches")
    assert response.status_code == 404
    assert "an endpoint of the plugin batches" in error_of(response)["message"]
