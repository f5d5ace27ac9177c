"""The contract that every plugin with routes must pass, over a server in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from msgspec import Struct

from fllm.interfaces import Collector, RequestRecord
from fllm.testing.asgi_client import Response, ServerSentEvent
from fllm.testing.scripted_server import ScriptedServer

KEY = "a-key-of-the-contract"
PIECES = ("Once", " upon", " a", " time", ": 안녕", " 🚀")
"""Pieces of text that the engine generates."""
WRONG_VALUES: tuple[Any, ...] = (None, True, -1, 1.5, 10**30, "", "x", [], [[]], {}, {"a": {}})
"""Values that each field of a body is replaced by."""
WRONG_BODIES = (b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b'{"a":' * 2000, b"1e999")
SECRET = "the contract's secret"


class RouteRequest(Struct, frozen=True, kw_only=True):
    """A request that a plugin's route must serve."""

    path: str
    method: str = "POST"
    body: Mapping[str, Any] | None = None
    """The JSON body; ``None``: none."""
    streamed: Mapping[str, Any] | None = None
    """Fields that make the response of this request a stream; ``None``: it can't be one."""
    required: Sequence[str] = ()
    """Fields of the body without which the request is invalid."""
    headers: Mapping[str, str] = {}
    generates: bool = True
    """Whether the engine generates the text of the response."""
    is_valid: bool = True
    """Whether the response must be a success. If not, only its errors are tested."""


class _Recorder(Collector):
    def __init__(self) -> None:
        self.ended: list[RequestRecord] = []

    def on_request_end(self, request: RequestRecord) -> None:
        self.ended.append(request)


class RoutesContract:
    """Every plugin with the hook `fllm_routes` passes this for each request that it names."""

    plugin: ClassVar[object]
    """The module or object that implements the hook."""
    requests: ClassVar[Sequence[RouteRequest]] = ()
    """One for each route. Each is small, and its ``max_tokens`` are enough for `PIECES`."""
    options: ClassVar[Mapping[str, Any]] = {}
    """Options of the plugin."""

    def server(self, **settings: Any) -> ScriptedServer:
        """Return a server with the plugin; ``settings`` are options of the server."""
        name = getattr(self.plugin, "__name__", type(self.plugin).__name__)
        options = {name: self.options} if self.options else {}
        return ScriptedServer(self.plugin, pieces=PIECES, options=options, **settings)

    def error_message(self, body: Any) -> str:
        """Return the message in an error's body, which has been decoded."""
        error = body.get("error", body)
        message = error.get("message") if isinstance(error, dict) else error
        assert isinstance(message, str), f"there is no message in the error {body!r}: override error_message"
        return message

    def text(self, response: Response) -> str:
        """Return the generated text of a whole response. Override it to compare it with a stream."""
        raise NotImplementedError

    def streamed_text(self, response: Response) -> str:
        """Return the generated text of a stream: that of its `events`, or of its `lines`."""
        raise NotImplementedError

    def test_the_routes_are_mounted(self) -> None:
        server = self.server()  # raises if the hook fails, or a path is not free
        for request in self._valid():
            response = self._ask(server, request)
            assert response.status not in (404, 405), (
                f"{request.method} {request.path} is not a route of the plugin: {_shown(response)}"
            )

    def test_valid_requests_succeed(self) -> None:
        server = self.server()
        for request in self._valid():
            response = self._ask(server, request)
            assert 200 <= response.status < 300, f"{_named(request)}: {_shown(response)}"
            if request.streamed is not None:
                streamed = self._ask(server, request, stream=True)
                assert 200 <= streamed.status < 300, f"{_named(request)}, streamed: {_shown(streamed)}"
                assert _is_stream(streamed), f"{_named(request)}, streamed: {streamed.headers}"

    def test_a_stream_and_a_whole_response_have_the_same_text(self) -> None:
        server = self.server()
        for request in self._valid():
            if request.generates and request.streamed is not None:
                whole = self.text(self._ask(server, request))
                assert whole == "".join(PIECES), f"{_named(request)}: the text is {whole!r}"
                streamed = self.streamed_text(self._ask(server, request, stream=True))
                assert streamed == whole, f"{_named(request)}: the stream has the text {streamed!r}"

    def test_a_key_is_required(self) -> None:
        server = self.server(api_keys=[KEY])
        for request in self.requests:
            response = self._ask(server, request, key=None)
            self._check_error(request, response, 401)
            if request.is_valid:
                allowed = self._ask(server, request, key=KEY)
                assert allowed.status < 300, f"{_named(request)}, with a key: {_shown(allowed)}"

    def test_invalid_bodies_are_errors_of_the_client(self) -> None:
        server = self.server()
        for request in self.requests:
            if request.body is None:
                continue
            for content in WRONG_BODIES:
                response = self._ask(server, request, content=content)
                self._check_client_error(request, response, content)
            for field in request.required:
                body = {name: value for name, value in request.body.items() if name != field}
                self._check_client_error(request, self._ask(server, request, body=body), f"without {field}")

    def test_wrong_values_never_break_the_server(self) -> None:
        server = self.server()
        for request in self.requests:
            for name, body in _mutations(request):
                response = self._ask(server, request, body=body)
                assert response.status < 500, f"{_named(request)}, {name}: {_shown(response)}"
                if response.status >= 400:
                    self._check_error(request, response, response.status)

    def test_another_content_type_is_refused_or_read(self) -> None:
        server = self.server()
        for request in self.requests:
            if request.body is not None:
                headers = {"content-type": "application/x-www-form-urlencoded"}
                response = self._ask(server, request, content=b"a=b", headers=headers)
                self._check_client_error(request, response, "a form")

    def test_requests_are_reported_to_collectors(self) -> None:
        recorder = _Recorder()
        server = self.server(collectors=[recorder])
        for request in self._generating():
            recorder.ended.clear()
            self._ask(server, request)
            self._ask(server, request, content=b"{")
            reported = [(each.path, each.status, each.generated_tokens > 0) for each in recorder.ended]
            assert reported == [(request.path, 200, True), (request.path, 400, False)], (
                f"{_named(request)}: a collector has received {reported}"
            )

    def test_a_full_server_is_an_error_with_retry_after(self) -> None:
        async def check(server: ScriptedServer, request: RouteRequest) -> None:
            async with server.running():
                server.engine.stalls_after = 0
                first = asyncio.create_task(self._send(server, request, key=KEY))
                await _until(lambda: server.engine.running > 0, request)
                response = await self._send(server, request, key=KEY)
                self._check_error(request, response, 429)
                assert "retry-after" in response.headers, f"{_named(request)}: a 429 has no Retry-After"
                first.cancel()
                await asyncio.gather(first, return_exceptions=True)

        for request in self._generating():
            asyncio.run(check(self.server(api_keys=[KEY], limits={"concurrency": 1}), request))

    def test_a_client_that_leaves_frees_the_engine(self) -> None:
        async def check(server: ScriptedServer, request: RouteRequest, *, stream: bool) -> None:
            async with server.running():
                server.engine.stalls_after = 2
                await asyncio.wait_for(self._send(server, request, stream=stream, leave_after=0), 10)
                await _until(lambda: not server.engine.running, request)

        for request in self._generating():
            for stream in (False, True) if request.streamed is not None else (False,):
                server = self.server(sse_keep_alive=0.01)
                asyncio.run(check(server, request, stream=stream))
                assert server.engine.aborted, f"{_named(request)}: the engine was not needed"

    def test_an_error_of_the_engine_is_reported(self) -> None:
        for request in self._generating():
            server = self.server()
            server.engine.fails_after = 0
            server.engine.failure = RuntimeError(SECRET)
            self._check_error(request, self._ask(server, request), 500)
            if request.streamed is not None:
                for steps in (0, 2):
                    server.engine.fails_after = steps
                    self._check_failed_stream(request, self._ask(server, request, stream=True))

    def test_a_late_request_is_an_error(self) -> None:
        for request in self._generating():
            server = self.server(request_timeout=0.05)
            server.engine.stalls_after = 1
            self._check_error(request, self._ask(server, request), 504)
            assert not server.engine.running, f"{_named(request)}: the engine is still needed"

    def _valid(self) -> Iterator[RouteRequest]:
        return (request for request in self.requests if request.is_valid)

    def _generating(self) -> Iterator[RouteRequest]:
        return (request for request in self._valid() if request.generates)

    def _ask(self, server: ScriptedServer, request: RouteRequest, **how: Any) -> Response:
        async def go() -> Response:
            async with server.running():
                return await asyncio.wait_for(self._send(server, request, **how), 30)

        return asyncio.run(go())

    async def _send(
        self,
        server: ScriptedServer,
        request: RouteRequest,
        *,
        body: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] = {},
        key: str | None = None,
        stream: bool = False,
        **how: Any,
    ) -> Response:
        sent: Mapping[str, Any] | None = request.body if body is None else body
        if stream:
            sent = {**(sent or {}), **(request.streamed or {})}
        authorization = {} if key is None else {"authorization": f"Bearer {key}"}
        if content is not None:
            headers = {"content-type": "application/json", **headers}
        return await server.send(
            request.method,
            request.path,
            json=sent,
            content=content,
            headers={**request.headers, **authorization, **headers},
            **how,
        )

    def _check_client_error(self, request: RouteRequest, response: Response, what: object) -> None:
        assert 400 <= response.status < 500, f"{_named(request)}, {what!r:.80}: {_shown(response)}"
        self._check_error(request, response, response.status)

    def _check_error(self, request: RouteRequest, response: Response, status: int) -> None:
        assert response.status == status, f"{_named(request)}: not {status}, but {_shown(response)}"
        try:
            body = response.json()
        except ValueError:
            raise AssertionError(f"{_named(request)}: an error is not JSON: {_shown(response)}") from None
        assert isinstance(body, dict), f"{_named(request)}: an error is not a JSON object: {_shown(response)}"
        assert self.error_message(body), f"{_named(request)}: an error has no message: {_shown(response)}"
        assert SECRET not in response.content.decode(), f"{_named(request)}: an error shows what failed"

    def _check_failed_stream(self, request: RouteRequest, response: Response) -> None:
        """Check a stream whose engine fails: it ends with an error, or is an error if it had not begun."""
        if not _is_stream(response):
            self._check_error(request, response, 500)
            return
        assert SECRET not in response.content.decode(), f"{_named(request)}: an error shows what failed"
        chunks = [_data(each) for each in response.events()] or response.lines()
        assert any("error" in json.dumps(chunk) for chunk in chunks[-2:]), (
            f"{_named(request)}: a stream that fails does not end with an error: {_shown(response)}"
        )


def _mutations(request: RouteRequest) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield bodies in which one value, at any depth, is another one."""
    yield from _changed(dict(request.body or {}), "body")
    for value in WRONG_VALUES:
        yield "an unknown field", {**(request.body or {}), "unknown_field_of_the_contract": value}


def _changed(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in [*inner]:
        for wrong in WRONG_VALUES:
            yield f"{path}[{key!r}] = {wrong!r}", _with(value, key, wrong)
        for where, changed in _changed(each, f"{path}[{key!r}]"):
            yield where, _with(value, key, changed)


def _with(value: Any, key: Any, replacement: Any) -> Any:
    copied = value.copy()
    copied[key] = replacement
    return copied


def _data(event: ServerSentEvent) -> Any:
    try:
        return event.json()
    except ValueError:
        return event.data


def _is_stream(response: Response) -> bool:
    kind = response.headers.get("content-type", "")
    return kind.startswith(("text/event-stream", "application/x-ndjson", "application/jsonl"))


def _named(request: RouteRequest) -> str:
    return f"{request.method} {request.path}"


def _shown(response: Response) -> str:
    return f"{response.status} {response.content.decode(errors='replace')[:500]}"


async def _until(condition: Any, request: RouteRequest) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{_named(request)}: the engine was not reached, or not freed, within 5 seconds")
