"""Servers that end in the middle of a batch, and a batch next to the requests of clients."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest
from openai.types import Batch
from support.api_fakes import error_of
from support.batch_server import BatchClient, a_batch_server, lines
from support.batch_server import run as run_batches
from support.fault_server import ask, chat_body, options, wait_until
from support.fault_table import Seen, fault
from support.http_server import Server, serving

from fllm.testing.echo import echo_model

KEY = "secret"
CHAT = "/v1/chat/completions"
LINES = 40
DONE = 8
"""Requests that have ended when the server does."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return echo_model(tmp_path_factory.mktemp("models") / "model")


@contextmanager
def batch_server(model: Path, directory: Path, *arguments: str) -> Iterator[tuple[Server, openai.OpenAI]]:
    """Run a server with a data directory; yield it with a client."""
    with (
        serving(model, *options(), "--data-dir", directory, "--max-num-seqs", "4", *arguments) as server,
        openai.OpenAI(base_url=server.api, api_key=KEY, max_retries=0) as client,
    ):
        yield server, client


def create(client: openai.OpenAI, lines: int, tokens: int) -> str:
    """Start a batch; return its id."""
    body = chat_body("hello", tokens=tokens)
    requests = [{"custom_id": f"r{i}", "method": "POST", "url": CHAT, "body": body} for i in range(lines)]
    content = "".join(f"{json.dumps(each)}\n" for each in requests).encode()
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    assert client.files.retrieve(file.id).bytes == len(content)
    return client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"from": "test"}
    ).id


def completed(client: openai.OpenAI, batch_id: str) -> int:
    counts = client.batches.retrieve(batch_id).request_counts
    return 0 if counts is None else counts.completed


def finish(client: openai.OpenAI, batch_id: str) -> Batch:
    """Return a batch once it is completed, with every request in its output once."""
    wait_until(lambda: client.batches.retrieve(batch_id).status == "completed", "completed")
    batch = client.batches.retrieve(batch_id)
    assert batch.output_file_id is not None
    output = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    assert sorted(line["custom_id"] for line in output) == sorted(f"r{i}" for i in range(LINES))
    contents = {line["response"]["body"]["choices"][0]["message"]["content"] for line in output}
    assert contents == {"aaaa"}
    return batch


def requests_of(server: Server) -> int:
    """Return how many chat requests the server has answered, by its access log."""
    return sum(f"POST {CHAT} 200" in line for line in server.lines)


def running(server: Server) -> float:
    """Return how many requests run, by the metrics."""
    page = httpx.get(f"{server.url}/metrics").text
    values = re.findall(r"^[\w:]*num_requests_running\{.*\} (\S+)$", page, re.MULTILINE)
    return float(values[0])


@fault(
    "Batches",
    "The server process is killed (SIGKILL) in the middle of a batch",
    must="The next server continues: requests that are done are not run again, all others are",
)
def test_a_batch_survives_a_kill(model: Path, tmp_path: Path, seen: Seen) -> None:
    with batch_server(model, tmp_path, "--api-key", KEY) as (server, client):
        batch_id = create(client, LINES, tokens=4)
        wait_until(lambda: completed(client, batch_id) >= DONE, "some requests are done")
        before = completed(client, batch_id)
        server.stop(signal.SIGKILL)
    with batch_server(model, tmp_path, "--api-key", KEY) as (server, client):
        batch = finish(client, batch_id)
        assert batch.metadata == {"from": "test"}
        assert [each.id for each in client.batches.list()] == [batch_id]
        again = requests_of(server)
        assert again <= LINES - before
        assert len(client.files.list(purpose="user_data").data) == 0
        assert len(client.files.list().data) == 2
        assert client.files.delete(batch.output_file_id or "").deleted
    seen(f"{before} of {LINES} requests were done; the next server ran {again}; each has one line of output")


@fault(
    "Batches",
    "The server receives SIGTERM in the middle of a batch",
    must="It exits with status 0 after the running requests; the next server continues the batch",
)
def test_a_batch_survives_a_shutdown(model: Path, tmp_path: Path, seen: Seen) -> None:
    with batch_server(model, tmp_path) as (server, client):
        batch_id = create(client, LINES, tokens=4)
        wait_until(lambda: completed(client, batch_id) >= DONE, "some requests are done")
        start = time.monotonic()
        assert server.stop() == 0, server.log()
        took = time.monotonic() - start
        ran = requests_of(server)
    with batch_server(model, tmp_path) as (server, client):
        finish(client, batch_id)
        again = requests_of(server)
    assert ran + again == LINES
    seen(f"status 0 after {took:.1f} s; the two servers ran {ran} and {again} of {LINES} requests")


@fault(
    "Batches",
    "A batch runs as many requests as the engine has places (4), each of 60 s",
    must="Other requests of the same client do not wait for it; a cancelled batch ends at once",
)
def test_a_batch_delays_no_other_request(model: Path, tmp_path: Path, seen: Seen) -> None:
    with batch_server(model, tmp_path, "--enable-metrics") as (server, client):
        start = time.monotonic()
        assert ask(server, "hello", tokens=10).status_code == 200
        alone = time.monotonic() - start
        batch_id = create(client, LINES, tokens=3000)
        wait_until(lambda: running(server) == 4, "four requests run")
        start = time.monotonic()
        assert ask(server, "hello", tokens=10).status_code == 200
        meanwhile = time.monotonic() - start
        assert meanwhile < alone + 5
        client.batches.cancel(batch_id)
        start = time.monotonic()
        wait_until(lambda: client.batches.retrieve(batch_id).status == "cancelled", "cancelled")
        cancelled = time.monotonic() - start
        batch = client.batches.retrieve(batch_id)
        assert batch.request_counts is not None
        assert batch.request_counts.failed == LINES
    seen(f"a request took {meanwhile:.2f} s, {alone:.2f} s alone; cancelled after {cancelled:.1f} s")


def fail_write(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@fault(
    "Batches",
    "The disk is full when a file is uploaded",
    must="507 with a clear message; nothing of the file stays",
)
def test_a_full_disk_is_an_error_that_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Seen
) -> None:
    async def work(client: BatchClient) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fail_write)
            response = await client.upload("x")
        assert (response.status_code, error_of(response)["code"]) == (507, "disk_full")
        assert not [path for path in (tmp_path / "files").rglob("*") if path.is_file()]
        assert (await client.upload("x")).status_code == 200
        seen(f"507, “{error_of(response)['message']}”; the next upload was stored")

    run_batches(a_batch_server(config={"data_dir": tmp_path}), work)


@fault(
    "Batches",
    "The disk is full while a batch writes its results",
    must="The batch fails with a clear message; the results before can be read",
)
def test_a_full_disk_fails_the_batch_and_keeps_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Seen
) -> None:
    server = a_batch_server(options={"concurrency": 1}, config={"data_dir": tmp_path})

    async def work(client: BatchClient) -> None:
        batch = await client.create(lines(*map(str, range(100))))
        await client.until(batch["id"], lambda each: each["request_counts"]["completed"] > 0)
        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", fail_write)
            batch = await client.finish(batch["id"])
        [error] = batch["errors"]["data"]
        assert (batch["status"], error["code"]) == ("failed", "storage_error")
        results = len(await client.lines(batch["output_file_id"]))
        assert 0 < results == batch["request_counts"]["completed"] < 100
        seen(f"failed, “{error['message']}”; {results} of 100 results can be read")

    run_batches(server, work)
