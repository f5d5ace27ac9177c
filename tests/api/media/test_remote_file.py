"""Images that the server fetches: only from allowed hosts, and from no address of its own network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fllm.errors import RequestError
from fllm_api.media import remote_file
from fllm_api.media.remote_file import fetch

HOST = "localhost"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        match self.path:
            case "/image.png?x=1":
                self._respond(200, b"image")
            case "/moved":
                self._respond(302, b"", location="/image.png?x=1")
            case "/elsewhere":
                self._respond(302, b"", location="http://example.com/image.png")
            case "/loop":
                self._respond(302, b"", location="/loop")
            case "/large":
                self._respond(200, b"x" * 1001)
            case "/%C3%A9%20.png":
                self._respond(200, b"escaped")
            case "/drip":
                with suppress(OSError):  # until the client goes away
                    while True:
                        self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                        time.sleep(0.05)
            case "/slow":
                self.rfile.read(1)  # until the client goes away
            case _:
                self._respond(404, b"")

    def _respond(self, status: int, body: bytes, location: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run a server, and let its address pass for a public one."""
    monkeypatch.setattr(remote_file, "_is_public", lambda address: True)
    with ThreadingHTTPServer((HOST, 0), _Handler) as server:
        server.daemon_threads = False  # so that closing waits for the slow response
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{HOST}:{server.server_port}"
        server.shutdown()


def get(url: str, *domains: str) -> bytes:
    return fetch(url, domains=domains, max_bytes=1000, param="url")


def message(call: Callable[[], object]) -> str:
    with pytest.raises(RequestError) as caught:
        call()
    assert caught.value.param == "url"
    return caught.value.message


@pytest.mark.parametrize("path", ["/image.png?x=1", "/moved"])
@pytest.mark.parametrize("domain", [HOST, "*"])
def test_a_file_is_fetched(origin: str, path: str, domain: str) -> None:
    assert get(origin + path, domain) == b"image"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/elsewhere", "images from example.com are not allowed; allowed: localhost"),
        ("/loop", "the image is behind more than 3 redirects"),
        ("/large", "the image has more than 1000 bytes"),
        ("/missing", "the image can't be fetched: localhost answers 404"),
    ],
)
def test_what_cannot_be_fetched(origin: str, path: str, expected: str) -> None:
    assert message(lambda: get(origin + path, HOST)) == expected


@pytest.mark.parametrize("path", ["/slow", "/drip"])
def test_a_slow_server_takes_no_longer_than_the_limit(
    origin: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_file, "FETCH_SECONDS", 0.3)
    assert message(lambda: get(origin + path, HOST)).endswith("it takes too long")


def test_other_characters_of_a_path_are_escaped(origin: str) -> None:
    assert get(origin + "/é .png", HOST) == b"escaped"


@pytest.mark.parametrize(
    ("url", "domains", "expected"),
    [
        ("https://example.com/a.png", (), "this server fetches no images"),
        ("https://EXAMPLE.com./a.png", ("example.org",), "images from example.com are not allowed"),
        ("ftp://example.com/a.png", ("*",), "must begin with data:, https:// or http://"),
        ("file:///etc/passwd", ("*",), "must begin with data:"),
        ("/etc/passwd", ("*",), "must begin with data:"),
        ("https://[::1/a", ("*",), "not valid"),
        ("https://example.com:99999/", ("*",), "not valid"),
        ("http://a..b/", ("*",), "can't be fetched from a..b"),
        (f"http://{'a' * 64}.example/", ("*",), "can't be fetched"),
        ("http://127.0.0.1/", ("*",), "its address is not public"),
        ("http://0x7f000001/", ("*",), "its address is not public"),
        ("http://2130706433/", ("*",), "its address is not public"),
        ("http://localhost/", ("localhost",), "its address is not public"),
        ("http://169.254.169.254/latest/meta-data", ("*",), "its address is not public"),
        ("http://10.0.0.8/", ("*",), "its address is not public"),
        ("http://[::1]/", ("*",), "its address is not public"),
        ("http://[::ffff:127.0.0.1]/", ("*",), "its address is not public"),
        ("http://[64:ff9b::7f00:1]/", ("*",), "its address is not public"),
        ("http://[fe80::1]/", ("*",), "its address is not public"),
        ("http://[2002:7f00:1::]/", ("*",), "its address is not public"),
    ],
)
def test_what_may_not_be_fetched(url: str, domains: tuple[str, ...], expected: str) -> None:
    assert expected in message(lambda: get(url, *domains))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("::", False),
        ("::127.0.0.1", False),
        ("::ffff:0:127.0.0.1", False),
        ("fec0::1", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert remote_file._is_public(address) is public
