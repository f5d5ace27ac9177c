"""A server with TLS, several names and a path prefix, as clients use it."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from support.certificates import certificate, client_context
from support.http_server import Server, serving

from fllm.testing.echo import ECHO_PLUGIN, echo_model

Files = tuple[Path, Path]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return certificate(tmp_path_factory.mktemp("tls"), password="secret")


@pytest.fixture(scope="module")
def server(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    model = echo_model(tmp_path_factory.mktemp("models") / "model")
    names = ("--served-model-name", "a", "--served-model-name", "b", "--root-path", "/llm")
    tls = ("--ssl-certfile", files[0], "--ssl-keyfile", files[1])
    echo = ("--plugin", ECHO_PLUGIN, "--backend", "echo")
    with serving(model, *echo, *names, *tls, FURIOSA_LLM_SSL_KEYFILE_PASSWORD="secret") as running:
        yield running


def test_openais_client_uses_each_name_below_the_prefix(server: Server, files: Files) -> None:
    assert server.url.startswith("https://")
    http = httpx.Client(verify=client_context(files[0]))
    client = openai.OpenAI(base_url=f"{server.url}/llm/v1", api_key="none", http_client=http)
    assert [model.id for model in client.models.list()] == ["a", "b"]
    for name in ("a", "b"):
        answer = client.chat.completions.create(model=name, messages=[{"role": "user", "content": "hi"}])
        assert (answer.model, answer.choices[0].message.content) == ("a", "hi")
        stream = client.completions.create(model=name, prompt="hello", stream=True)
        assert "".join(chunk.choices[0].text for chunk in stream) == "hello"


def over_http_1_0(server: Server, files: Files, body: bytes) -> tuple[bytes, bytes]:
    """Return head and body of the response to a client of HTTP/1.0 that may know nothing newer."""
    port = urlsplit(server.url).port or 0
    head = b"POST /v1/chat/completions HTTP/1.0\r\nContent-Type: application/json\r\n"
    plain = socket.create_connection(("127.0.0.1", port), timeout=30)
    with client_context(files[0]).wrap_socket(plain, server_hostname="localhost") as end:
        end.sendall(b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body))
        received = b"".join(iter(lambda: end.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_of_http_1_0_gets_the_events_as_they_are(server: Server, files: Files, stream: bool) -> None:
    asked = {"messages": [{"role": "user", "content": "hello"}], "stream": stream}
    head, body = over_http_1_0(server, files, json.dumps(asked).encode())
    assert b"200 OK" in head
    assert b"transfer-encoding" not in head
    if stream:
        lines = body.split(b"\n\n")
        assert (lines[-2:], lines[0][:7]) == ([b"data: [DONE]", b""], b"data: {")
    else:
        assert json.loads(body)["choices"][0]["message"]["content"] == "hello"


def test_a_new_certificate_is_used_after_a_signal(server: Server, files: Files, tmp_path: Path) -> None:
    name, port = "localhost", urlsplit(server.url).port or 0
    before = ssl.get_server_certificate((name, port))
    assert before == files[0].read_text()
    for old, new in zip(files, certificate(tmp_path, password="secret"), strict=True):
        old.write_bytes(new.read_bytes())
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 20
    while ssl.get_server_certificate((name, port)) == before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert ssl.get_server_certificate((name, port)) == files[0].read_text()
    assert "API keys" not in server.log()
    assert "secret" not in server.log()
