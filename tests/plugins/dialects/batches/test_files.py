"""`/v1/files` over ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.api_fakes import COMPLETION_SCOPE, error_of
from support.batch_server import BatchClient, a_batch_server, lines, run

from fllm_api.api_keys import ApiKeys
from fllm_dialects.batches import service
from fllm_dialects.batches.contents import Contents, FileWriter
from fllm_dialects.batches.form import FORM_BYTES


def contents(directory: Path) -> list[Path]:
    return [path for path in (directory / "files").rglob("*") if path.is_file()]


def test_a_file_is_stored_listed_read_and_deleted(tmp_path: Path) -> None:
    async def work(client: BatchClient) -> None:
        content = b"line \xff\r\n--x\n" * 10_000
        file = (await client.upload(content)).json()
        created = file["created_at"]
        assert file == {
            "id": file["id"],
            "object": "file",
            "bytes": len(content),
            "created_at": created,
            "expires_at": created + 30 * 86400,
            "filename": "in.jsonl",
            "purpose": "batch",
            "status": "processed",
        }
        assert await client.get(f"/v1/files/{file['id']}") == file
        page = await client.get("/v1/files")
        assert page == {
            "object": "list",
            "data": [file],
            "first_id": file["id"],
            "last_id": file["id"],
            "has_more": False,
        }
        response = await client.http.get(f"/v1/files/{file['id']}/content")
        assert response.content == content
        assert response.headers["content-length"] == str(len(content))
        assert response.headers["content-disposition"] == "attachment; filename*=UTF-8''in.jsonl"
        head = await client.http.head(f"/v1/files/{file['id']}/content")
        assert (head.status_code, head.content) == (200, b"")
        assert [path.stat().st_mode & 0o077 for path in contents(tmp_path)] == [0]
        deleted = await client.http.delete(f"/v1/files/{file['id']}")
        assert deleted.json() == {"id": file["id"], "object": "file", "deleted": True}
        for path in ("", "/content"):
            response = await client.http.get(f"/v1/files/{file['id']}{path}")
            assert (response.status_code, error_of(response)["code"]) == (404, "file_not_found")
        assert contents(tmp_path) == []

    run(a_batch_server(config={"data_dir": tmp_path}), work)


def test_files_have_pages(tmp_path: Path) -> None:
    async def work(client: BatchClient) -> None:
        ids = [(await client.upload("x")).json()["id"] for _ in range(5)]

        async def page(query: str) -> tuple[list[str], bool]:
            found = await client.get(f"/v1/files?{query}")
            return [each["id"] for each in found["data"]], found["has_more"]

        assert await page("limit=2") == (ids[:2:-1], True)
        assert await page(f"limit=2&after={ids[3]}") == ([ids[2], ids[1]], True)
        assert await page(f"limit=3&after={ids[2]}&order=asc") == (ids[3:], False)
        assert await page("purpose=batch&limit=5&order=asc") == (ids, False)
        assert await page("purpose=batch_output") == ([], False)
        for query, param in (("limit=0", "limit"), ("limit=x", "limit"), ("order=up", "order")):
            response = await client.http.get(f"/v1/files?{query}")
            assert (response.status_code, error_of(response)["param"]) == (400, param)
        response = await client.http.get("/v1/files?after=file-x")
        assert (response.status_code, error_of(response)["param"]) == (404, "after")

    run(a_batch_server(config={"data_dir": tmp_path}), work)


WRONG_FIELDS = (
    ({"purpose": "fine-tune"}, "purpose"),
    ({"purpose": ""}, "purpose"),
    ({"more": "x"}, "more"),
    ({"expires_after[anchor]": "created_at"}, "expires_after"),
    ({"expires_after[seconds]": "3600"}, "expires_after"),
    ({"expires_after[anchor]": "now", "expires_after[seconds]": "3600"}, "expires_after"),
    ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "5"}, "expires_after"),
    ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "x"}, "expires_after"),
)


def test_a_wrong_field_is_named_and_nothing_is_stored(tmp_path: Path) -> None:
    async def work(client: BatchClient) -> None:
        for fields, param in WRONG_FIELDS:
            response = await client.upload("x", **fields)
            assert (response.status_code, error_of(response)["param"]) == (400, param)
        assert contents(tmp_path) == []
        assert (await client.get("/v1/files"))["data"] == []

    run(a_batch_server(config={"data_dir": tmp_path}), work)


def test_a_form_without_a_purpose_or_that_is_none_is_refused(tmp_path: Path) -> None:
    async def work(client: BatchClient) -> None:
        response = await client.http.post("/v1/files", files={"file": ("a", b"x")})
        assert (response.status_code, error_of(response)["param"]) == (400, "purpose")
        response = await client.http.post("/v1/files", json={"purpose": "batch"})
        assert response.status_code == 400
        assert contents(tmp_path) == []

    run(a_batch_server(config={"data_dir": tmp_path}), work)


def test_a_file_expires_when_its_client_says(tmp_path: Path) -> None:
    async def work(client: BatchClient) -> None:
        fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "7200"}
        file = (await client.upload("x", **fields)).json()
        assert file["expires_at"] == file["created_at"] + 7200

    run(a_batch_server(config={"data_dir": tmp_path}), work)


def test_a_file_may_be_larger_than_other_bodies_but_not_than_its_own_limits(tmp_path: Path) -> None:
    options = {"max_file_bytes": 300_000, "max_client_bytes": 500_000}
    config = {"data_dir": tmp_path, "max_body_bytes": 1000, "max_body_memory": 2000}

    async def chunks(size: int) -> AsyncIterator[bytes]:
        yield b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(size // 1000):
            yield b"x" * 1000
        yield b"\r\n--B--\r\n"

    async def work(client: BatchClient) -> None:
        first = await client.upload(b"x" * 300_000)
        assert first.status_code == 200, first.text
        for content in (300_001, 300_000 + 2 * FORM_BYTES):
            response = await client.upload(b"x" * content)
            assert (response.status_code, error_of(response)["code"]) == (413, "file_too_large")
        headers = {"content-type": "multipart/form-data; boundary=B"}
        response = await client.http.post("/v1/files", content=chunks(400_000), headers=headers)
        assert response.status_code == 413
        response = await client.upload(b"x" * 250_000)
        assert response.status_code == 413
        assert "the files of one client may have 500000 bytes in all" in error_of(response)["message"]
        assert len(contents(tmp_path)) == 1
        await client.http.delete(f"/v1/files/{first.json()['id']}")
        assert (await client.upload(b"x" * 250_000)).status_code == 200
        response = await client.http.post("/v1/batches", content=b" " * 2000)
        assert response.status_code in (413, 415)

    run(a_batch_server(options=options, config=config), work)


def test_the_size_of_all_files_is_limited_and_counted_after_a_restart(tmp_path: Path) -> None:
    server = a_batch_server(options={"max_total_bytes": 10_000}, config={"data_dir": tmp_path})

    async def first(client: BatchClient) -> None:
        assert (await client.upload(b"x" * 5000)).status_code == 200

    async def second(client: BatchClient) -> None:
        response = await client.upload(b"x" * 2000)
        assert response.status_code == 413
        assert "all files of this server" in error_of(response)["message"]

    run(server, first)
    run(server, second)


def test_what_a_client_that_leaves_has_sent_is_removed(tmp_path: Path) -> None:
    part = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"x" * 3_000_000
    statuses: list[int] = []

    async def receive() -> Any:
        if contents(tmp_path):
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": True}

    async def send(message: Any) -> None:
        statuses.append(message.get("status", 0))

    async def work(client: BatchClient) -> None:
        kind = (b"content-type", b"multipart/form-data; boundary=B")
        scope = {**COMPLETION_SCOPE, "path": "/v1/files", "raw_path": b"/v1/files", "headers": [kind]}
        await client.app({**scope, "state": {}}, receive, send)
        assert statuses[0] == 499
        assert contents(tmp_path) == []

    run(a_batch_server(config={"data_dir": tmp_path}), work)


def test_little_of_an_upload_is_in_memory(tmp_path: Path) -> None:
    async def run_writer() -> None:
        directory = Contents(tmp_path / "files", max_client=1 << 30, max_total=1 << 30)
        async with FileWriter(directory, "", "file-1", 1 << 30) as writer:
            for _ in range(10):
                await writer.write(b"x" * 30_000)
            [path] = contents(tmp_path)
            assert writer.size - path.stat().st_size < 64 * 1024

    asyncio.run(run_writer())


def test_files_are_those_of_a_key(tmp_path: Path) -> None:
    server = a_batch_server(config={"data_dir": tmp_path, "keys": ApiKeys(["one", "two"])})

    async def work(client: BatchClient) -> None:
        file = (await client.upload(lines("a"))).json()
        other = {"authorization": "Bearer two"}
        assert (await client.http.get("/v1/files", headers=other)).json()["data"] == []
        for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
            response = await client.http.request(method, f"/v1/files/{file['id']}{path}", headers=other)
            assert response.status_code == 404
        body = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        response = await client.http.post("/v1/batches", json=body, headers=other)
        assert (response.status_code, error_of(response)["param"]) == (404, "input_file_id")
        assert (await client.get(f"/v1/files/{file['id']}"))["id"] == file["id"]
        del client.http.headers["authorization"]
        assert (await client.upload("x")).status_code == 401

    run(server, work, authorization="Bearer one")


def test_a_web_page_can_upload_only_what_its_browser_asks_for(tmp_path: Path) -> None:
    async def work(client: BatchClient) -> None:
        form: dict[str, Any] = {"data": {"purpose": "batch"}, "files": {"file": ("a", b"x")}}
        headers = {"origin": "http://localhost:3000"}
        assert (await client.http.post("/v1/files", headers=headers, **form)).status_code == 403
        headers["authorization"] = "Bearer any"
        assert (await client.http.post("/v1/files", headers=headers, **form)).status_code == 200

    run(a_batch_server(config={"data_dir": tmp_path}), work)


def test_a_file_that_has_expired_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAINTENANCE_INTERVAL", 0.01)
    server = a_batch_server(options={"file_ttl": 1}, config={"data_dir": tmp_path})

    async def work(client: BatchClient) -> None:
        file = (await client.upload("x")).json()
        assert contents(tmp_path)
        async with asyncio.timeout(10):
            while (await client.http.get(f"/v1/files/{file['id']}")).status_code == 200:
                await asyncio.sleep(0.01)
            assert (await client.get("/v1/files"))["data"] == []
            while contents(tmp_path):
                await asyncio.sleep(0.01)

    run(server, work)


def test_a_directory_that_cannot_be_used_is_replaced_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "files").write_text("not a directory")

    async def work(client: BatchClient) -> None:
        assert (await client.upload("x")).status_code == 200

    run(a_batch_server(config={"data_dir": tmp_path}), work)
    assert "files and batches are lost when the server ends" in caplog.text


def test_without_a_directory_files_are_kept_until_the_server_ends() -> None:
    async def first(client: BatchClient) -> None:
        file = (await client.upload("x")).json()
        assert (await client.http.get(f"/v1/files/{file['id']}/content")).text == "x"

    async def second(client: BatchClient) -> None:
        assert (await client.get("/v1/files"))["data"] == []

    server = a_batch_server()
    run(server, first)
    run(server, second)


def test_where_nothing_can_be_written_the_server_starts_and_refuses_uploads(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def nowhere(**_: Any) -> Any:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(service.tempfile, "TemporaryDirectory", nowhere)

    async def go(client: BatchClient) -> None:
        response = await client.upload("x")
        assert response.status_code == 503
        assert error_of(response)["code"] == "storage_error"

    run(a_batch_server(), go)
    assert "files can't be stored: no usable temporary directory" in caplog.text
