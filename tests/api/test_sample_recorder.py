"""``--record``: what models write, in a file of samples."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from fllm.errors import ConfigError
from fllm.interfaces import ParserContext
from fllm.parsing import read_samples
from fllm.pipeline.samples import SampledParsers
from fllm.testing import ScriptedServer
from fllm_api import sample_recorder
from fllm_api.record_config import RecordConfig, open_private

CALL = '<tool_call>{"name": "f", "arguments": {"mail": "a@b.example"}}</tool_call>'
PIECES = ("<think>Hm.</think>", "So: ", *CALL)
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


def a_server(file: Path, *redact: str, pieces: Any = PIECES, max_bytes: int = 10**6, **more: Any) -> Any:
    """Return a server that records, with parsers unless ``more`` says otherwise."""
    record = RecordConfig(file, max_bytes, tuple(map(re.compile, redact)))
    parsers = {"tool_call_parser": "hermes", "reasoning_parser": "qwen3", **more}
    return ScriptedServer(pieces=pieces, record=record, **parsers)


def chat(server: Any, **body: Any) -> Any:
    """Send one chat request."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "tools": TOOLS, **body}
    return server.ask("POST", "/v1/chat/completions", json=body)


def test_each_parser_of_a_finished_request_has_a_sample(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    server = a_server(file)
    assert chat(server).status == 200
    assert chat(server, stream=True).status == 200
    assert chat(server, temperature=-1).status == 400
    reasoning, calls, *streamed = read_samples(file)
    assert streamed == [reasoning, calls]
    assert (reasoning.parser, reasoning.kind, reasoning.text) == ("qwen3", "reasoning", "".join(PIECES))
    assert (calls.parser, calls.kind, calls.text) == ("hermes", "tool-call", f"So: {CALL}")
    assert (calls.model, calls.tools[0].function.name) == ("scripted", "f")
    assert [type(event).__name__ for event in calls.events or ()] == ["Text", "ToolStart", "ToolArguments"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_request_without_parsers_has_a_sample_without_events(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    server = a_server(file, tool_call_parser=None, reasoning_parser=None, pieces=["Hello", " you"])
    body = {"model": "m", "prompt": "Hi", "n": 2}
    assert server.ask("POST", "/v1/completions", json=body).status == 200
    first, second = read_samples(file)
    assert first == second
    assert (first.parser, first.text, first.events) == ("raw", "Hello you", None)


def test_what_is_redacted_is_in_no_field_and_takes_the_events_with_it(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    server = a_server(file, r"[\w.]+@[\w.]+", r"Hm")
    chat(server, tools=[{**TOOLS[0], "function": {**TOOLS[0]["function"], "description": "x@y.example"}}])
    assert "@" not in file.read_text()
    reasoning, calls = read_samples(file)
    assert reasoning.text.startswith("<think>[redacted].</think>")
    assert '"mail": "[redacted]"' in calls.text
    assert calls.events is None
    assert calls.parser == "hermes"


def test_a_client_that_leaves_is_not_recorded(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    server = a_server(file)
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}

    async def leave() -> None:
        async with server.running():
            await server.send("POST", "/v1/chat/completions", json=body, leave_after=2)

    asyncio.run(leave())
    assert file.read_bytes() == b""


def test_a_full_file_ends_the_recording_and_no_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "samples.jsonl"
    file.write_text("{}\n")
    file.chmod(0o644)
    server = a_server(file, max_bytes=20)
    with caplog.at_level(logging.WARNING):
        assert [chat(server).status, chat(server).status] == [200, 200]
    assert file.read_text() == "{}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert caplog.text.count("nothing more is recorded") == 1


def test_what_waits_to_be_written_is_bounded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_recorder, "MAX_PENDING_CHARACTERS", 10)
    server = a_server(tmp_path / "samples.jsonl")
    with caplog.at_level(logging.WARNING):
        assert chat(server).status == 200
    assert "some are left out" in caplog.text
    assert (tmp_path / "samples.jsonl").read_bytes() == b""


def test_a_parser_that_fails_takes_only_its_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "samples.jsonl"

    def fail(*_: object) -> None:
        raise ValueError("broken")

    server = a_server(file)
    with monkeypatch.context() as patch:
        patch.setattr(sample_recorder, "make_samples", fail)
        assert chat(server).status == 200
        assert file.read_bytes() == b""
    chat(server)
    assert len(read_samples(file)) == 2


def test_only_a_regular_file_is_written(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for file in (link, pipe, tmp_path, tmp_path / "no" / "file"):
        with pytest.raises(ConfigError, match=f"--record {file}"):
            open_private(file)


def test_each_line_is_complete(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    chat(a_server(file, pieces=["a\nb\u2028c"]))
    assert [json.loads(line)["text"] for line in file.read_bytes().splitlines()] == ["a\nb\u2028c"]


def test_a_secret_that_the_end_of_the_prompt_cuts_is_redacted(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    text = f"my key: sk-{'x' * 60}"
    chat(a_server(file, r"sk-\w{60,}"), messages=[{"role": "user", "content": text}], tools=[])
    reasoning = read_samples(file)[0]
    assert "xx" not in file.read_text()
    assert "key: [redacted]" in reasoning.prompt_end
    assert reasoning.events is None


def test_prompts_count_as_waiting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_recorder, "MAX_PENDING_CHARACTERS", 2000)
    server = a_server(tmp_path / "samples.jsonl", pieces=["a"])
    with caplog.at_level(logging.WARNING):
        chat(server)
        assert not caplog.text
        chat(server, messages=[{"role": "user", "content": "long " * 400}])
    assert "some are left out" in caplog.text


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "samples.jsonl"
    file.write_text("{}\n")
    write = os.write

    def write_some(descriptor: int, content: bytes) -> int:
        if not content.startswith(b'{"parser'):
            raise OSError(errno.ENOSPC, "no space left")
        return write(descriptor, content[:7])

    server = a_server(file)
    with monkeypatch.context() as patch:
        patch.setattr(sample_recorder.os, "write", write_some)
        assert chat(server).status == 200
    assert file.read_text() == "{}\n"


def test_a_slow_end_does_not_close_the_file_of_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_recorder, "CLOSE_SECONDS", 0.01)
    opened: list[int] = []

    def open_recorded(file: Path) -> int:
        opened.append(open_private(file))
        return opened[-1]

    monkeypatch.setattr(sample_recorder, "open_private", open_recorded)
    go_on, in_thread = threading.Event(), threading.Event()

    def wait(*_: object) -> list[object]:
        in_thread.set()
        go_on.wait(10)
        return []

    monkeypatch.setattr(sample_recorder, "make_samples", wait)
    recorder = sample_recorder.SampleRecorder(RecordConfig(tmp_path / "samples.jsonl", 10**6))

    async def start_twice() -> None:
        async with recorder.lifespan():
            recorder._put(_finished())
            await asyncio.to_thread(in_thread.wait, 10)
            (thread,) = (each for each in threading.enumerate() if each.name == "fllm-record")
        async with recorder.lifespan():
            go_on.set()
            await asyncio.to_thread(thread.join, 10)
            alive = [each for each in threading.enumerate() if each.name == "fllm-record"]
            assert len(alive) == 1
            with pytest.raises(OSError, match="Bad file"):
                os.fstat(opened[0])
            os.fstat(opened[1])

    asyncio.run(start_twice())


def _finished() -> Any:
    parsers = SampledParsers(ParserContext(prompt=""), None, None)
    return sample_recorder._Finished(parsers, "m", ["text"])
