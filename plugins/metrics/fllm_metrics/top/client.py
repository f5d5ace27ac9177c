"""What a server tells of itself."""

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
from fllm_metrics.top.metrics_page import Page, read_page

T = TypeVar("T")

TIMEOUT = 5.0
"""Seconds for one answer."""


class About(Struct, frozen=True):
    """What does not change while a server runs."""

    model: str
    context: int
    backend: str
    version: str


class Look(Struct, frozen=True, kw_only=True):
    """One look at the server."""

    at: float
    """`time.monotonic`."""
    page: Page | None = None
    """Not there if the server is not."""
    about: About | None = None
    trouble: str = ""
    """Why no request would be served now, if so."""


class Trouble(Exception):
    """The server is not as it should be; it may be again."""


class Probe:
    """Asks one server; its own requests are none that its metrics count."""

    def __init__(self, url: str, key: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.url = _base(url)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._clock = clock
        self._about: About | None = None
        # As for other tools that speak to a server by its own address: a proxy is not asked.
        self._opener = build_opener(ProxyHandler({}))

    def look(self) -> Look:
        """Look once; raises `ConfigError` where looking again would not help."""
        try:
            page = self._page()
            self._about = self._about or self._ask_about()
            return Look(at=self._clock(), page=page, about=self._about, trouble=self._trouble())
        except Trouble as trouble:
            return self._without_page(str(trouble))
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            return self._without_page(f"no answer: {_plain(reason)}")

    def _without_page(self, trouble: str) -> Look:
        about, self._about = self._about, None  # what comes back may be another
        return Look(at=self._clock(), about=about, trouble=trouble)

    def _page(self) -> Page:
        try:
            page = read_page(self._body("/metrics").decode())
        except ValueError:
            raise ConfigError(f"{self.url}/metrics is no page of metrics") from None
        if "num_requests_running" not in page.values:
            raise ConfigError(f"{self.url}/metrics has no metrics of furiosa-llm")
        return page

    def _ask_about(self) -> About:
        models = _decode(self._body("/v1/models"), _Models).data
        version = _decode(self._body("/version"), _Version)
        if not models:
            raise Trouble("it lists no model")
        parts = (version.backend.get(part) for part in ("name", "device", "dtype", "quantization"))
        backend = ", ".join(str(part) for part in parts if part)
        return About(models[0].id, models[0].max_model_len, backend, version.version)

    def _trouble(self) -> str:
        """What `/health` and `/ready` say; empty if all is well."""
        for path, name in (("/health", "the engine does not answer"), ("/ready", "not ready")):
            status, body = self._get(path)
            if status not in (200, 404):
                return f"{name}: {_message(status, body)}"
        return ""

    def _body(self, path: str) -> bytes:
        status, body = self._get(path)
        if status == 401:
            what = "refuses this key" if self._headers else "wants a key"
            raise ConfigError(f"{self.url} {what}: give one of its own by --api-key or FURIOSA_LLM_API_KEY")
        if status == 404 and path == "/metrics":
            raise ConfigError(f"{self.url} shows no metrics: start the server with --enable-metrics")
        if status != 200:
            raise Trouble(f"{path}: {_message(status, body)}")
        return body

    def _get(self, path: str) -> tuple[int, bytes]:
        request = Request(self.url + path, headers=self._headers)
        try:
            with self._opener.open(request, timeout=TIMEOUT) as response:
                return response.status, response.read()
        except HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read()


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
    """The server's address, with or without a scheme, ``/v1`` or a slash at its end."""
    base = (url if "://" in url else f"http://{url}").rstrip("/").removesuffix("/v1")
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url!r} is not a URL such as http://localhost:8000")
    return base


def _decode(body: bytes, wanted: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=wanted)
    except msgspec.MsgspecError as error:
        raise Trouble(f"it speaks otherwise than furiosa-llm: {error}") from None


def _message(status: int, body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Envelope).error.message
    except msgspec.MsgspecError:
        return f"HTTP {status}"


def _plain(error: object) -> str:
    """``[Errno 111] Connection refused`` says no more than ``Connection refused``."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return (text or type(error).__name__).lower()
