"""Fetch the state of a running server."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.client import HTTPException
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import msgspec
from msgspec import Struct

from fllm.errors import ConfigError
from fllm_metrics.top.metrics_page import Page, parse_page

T = TypeVar("T")

TIMEOUT = 5.0
"""Seconds to wait for a response."""


class ServerInfo(Struct, frozen=True):
    """Facts that do not change while a server runs."""

    model: str
    context: int
    backend: str
    version: str


class Snapshot(Struct, frozen=True, kw_only=True):
    """The state of the server at one time."""

    at: float
    """Time on the clock `time.monotonic`."""
    page: Page | None = None
    """None if the server is unreachable."""
    info: ServerInfo | None = None
    problem: str = ""
    """Why the server can't serve requests now; empty if it can."""


class Unhealthy(Exception):
    """The server is unhealthy, perhaps only for some time."""


class Client:
    """Fetches pages that the server's request metrics do not count."""

    def __init__(self, url: str, key: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.url = _base(url)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._clock = clock
        self._info: ServerInfo | None = None
        # No proxy: the URL is the server's own address.
        self._opener = build_opener(ProxyHandler({}))

    def snapshot(self) -> Snapshot:
        """Return the current state; raise `ConfigError` if trying again would not help."""
        try:
            page = self._fetch_metrics()
            self._info = self._info or self._fetch_info()
            return Snapshot(at=self._clock(), page=page, info=self._info, problem=self._find_problem())
        except Unhealthy as error:
            return self._without_page(str(error))
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            return self._without_page(f"no response: {_reason(reason)}")

    def _without_page(self, problem: str) -> Snapshot:
        info, self._info = self._info, None  # the server may be another one when it is back
        return Snapshot(at=self._clock(), info=info, problem=problem)

    def _fetch_metrics(self) -> Page:
        try:
            page = parse_page(self._body("/metrics").decode())
        except ValueError:
            raise ConfigError(f"{self.url}/metrics is not a page of metrics") from None
        if "num_requests_running" not in page.values:
            raise ConfigError(f"{self.url}/metrics has no metrics of furiosa-llm")
        return page

    def _fetch_info(self) -> ServerInfo:
        models = _decode(self._body("/v1/models"), _Models).data
        version = _decode(self._body("/version"), _Version)
        if not models:
            raise Unhealthy("the server lists no model")
        parts = (version.backend.get(part) for part in ("name", "device", "dtype", "quantization"))
        backend = ", ".join(str(part) for part in parts if part)
        return ServerInfo(models[0].id, models[0].max_model_len, backend, version.version)

    def _find_problem(self) -> str:
        """Return the problem that `/health` or `/ready` reports, or an empty string."""
        for path, name in (("/health", "the engine does not respond"), ("/ready", "not ready")):
            status, body = self._get(path)
            if status not in (200, 404):
                return f"{name}: {_message(status, body)}"
        return ""

    def _body(self, path: str) -> bytes:
        status, body = self._get(path)
        if status == 401:
            problem = "rejects this key" if self._headers else "requires a key"
            raise ConfigError(f"{self.url} {problem}: set a valid one with --api-key or FURIOSA_LLM_API_KEY")
        if status == 404 and path == "/metrics":
            raise ConfigError(f"{self.url} exposes no metrics: start the server with --enable-metrics")
        if status != 200:
            raise Unhealthy(f"{path}: {_message(status, body)}")
        return body

    def _get(self, path: str) -> tuple[int, bytes]:
        request = Request(self.url + path, headers=self._headers)
        try:
            with self._opener.open(request, timeout=TIMEOUT) as response:
                return response.status, response.read()
        except HTTPError as error:
            with error:
                return error.code, error.read()


class _Model(Struct):
    id: str
    max_model_len: int = 0


class _Models(Struct):
    data: list[_Model]


class _Version(Struct):
    version: str
    backend: dict[str, Any] = {}


class _Error(Struct):
    message: str


class _Envelope(Struct):
    error: _Error


def _base(url: str) -> str:
    """Return the server's base URL; the scheme, ``/v1`` and a trailing slash are optional."""
    base = (url if "://" in url else f"http://{url}").rstrip("/").removesuffix("/v1")
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url!r} is not a URL such as http://localhost:8000")
    return base


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise Unhealthy(f"the server responds differently from furiosa-llm: {error}") from None


def _message(status: int, body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Envelope).error.message
    except msgspec.MsgspecError:
        return f"HTTP {status}"


def _reason(error: object) -> str:
    """Return the reason of an error without its number, in lower case."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return (text or type(error).__name__).lower()
