"""The server, for work of plugins that outlives a request: `fllm.RunningServer`."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast
from urllib.parse import quote, unquote

from litestar import Litestar
from litestar.types import HTTPScope, Message, Receive, Scope, Send

from fllm.errors import BackendUnavailable
from fllm.interfaces import Collector
from fllm.pipeline.request_tracker import RequestTracker
from fllm.serving import InternalResponse, Serving
from fllm_api.errors import classify_error
from fllm_api.lifecycle.deadline import Deadline
from fllm_api.lifecycle.drain import SHUTTING_DOWN, RequestDrain
from fllm_api.limits.admission import Admission, AdmissionSlot, ServerBusy
from fllm_api.limits.client_limits import RateLimited
from fllm_api.model_registry import ModelRegistry
from fllm_api.request_context import RequestContext, context_of
from fllm_api.serving.request_serving import RequestServing

_PATH = "/%:@!$&'()*+,;=~"
_QUERY = _PATH + "?"
"""Characters of a path and of a query that stay as they are (RFC 3986, 3.3 and 3.4)."""
RETRY_SECONDS = 0.5
"""Seconds between two attempts to admit work while the client or the server is at its limits."""


class BackgroundServer:
    """Runs requests that have no connection, under the limits of their clients."""

    def __init__(
        self,
        models: ModelRegistry,
        admission: Admission,
        drain: RequestDrain,
        collectors: Sequence[Collector],
    ) -> None:
        self.app: Litestar | None = None
        """The application, once it is built."""
        self._models = models
        self._admission = admission
        self._drain = drain
        self._collectors = collectors
        self._tasks: set[asyncio.Task[None]] = set()

    async def call(
        self, method: str, path: str, body: bytes, *, client: str, owner: str = "", priority: int = 0
    ) -> InternalResponse:
        """Return the response to a request of this client. It is aborted if the caller is cancelled."""
        assert self.app is not None, "the server has not started"
        scope = _scope(method, path, body)
        context = context_of(scope)
        context.client, context.owner, context.priority, context.internal = client, owner, priority, True
        response = _Response()
        await self.app(scope, _receive(body), cast(Send, response.send))
        return InternalResponse(response.status, b"".join(response.parts), context.request_id)

    def start(
        self,
        work: Callable[[Serving], Awaitable[None]],
        *,
        client: str,
        path: str,
        owner: str = "",
        model: str | None = None,
    ) -> asyncio.Task[None]:
        """Start work that generates for this client."""
        context = RequestContext(uuid.uuid4().hex, client, "POST")
        context.owner, context.internal = owner, True
        task = asyncio.create_task(self._run(work, context, path, model))
        self._tasks.add(task)  # the event loop keeps no reference
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(
        self,
        work: Callable[[Serving], Awaitable[None]],
        context: RequestContext,
        path: str,
        model: str | None,
    ) -> None:
        served = self._models.find(model)
        tracker = context.tracker = RequestTracker(
            context.request_id,
            self._collectors,
            method="POST",
            path=path,
            client=context.client,
            deferred=self._models.selects,
        )
        if self._models.selects:
            tracker.choose_model(served.name)
        try:
            slot = context.slot = await self._admit(context.client, tracker)
            deadline = context.deadline = Deadline()
            try:
                with self._drain.track(deadline):
                    async with deadline.enforce(), self._models.use(served, context.client) as state:
                        await work(RequestServing(state, context, None))
            finally:
                slot.release()
            context.status = 200
        except Exception as error:
            context.status, info = classify_error(error)
            context.error = info.message
            raise
        except BaseException:
            context.error = "the request was cancelled"
            raise
        finally:
            tracker.status = context.status
            tracker.finish(context.error)
            for collector in self._collectors:
                collector.on_http_request_end(tracker)

    async def _admit(self, client: str, tracker: RequestTracker) -> AdmissionSlot:
        """Wait until the limits of the client and of the server have room."""
        while not self._drain.started:
            try:
                return self._admission.admit(client, tracker)
            except (RateLimited, ServerBusy):
                await asyncio.sleep(RETRY_SECONDS)
        raise BackendUnavailable(SHUTTING_DOWN)


class _Response:
    """Collects the response of the application."""

    def __init__(self) -> None:
        self.status = 0
        self.parts: list[bytes] = []

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self.parts.append(message.get("body", b""))


def _receive(body: bytes) -> Receive:
    """Return what receives the body once, and then waits: the connection never closes."""
    messages: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.Event().wait()

    return receive


def _scope(method: str, url: str, body: bytes) -> Scope:
    path, _, query = url.partition("?")
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": quote(path, safe=_PATH).encode(),
        "root_path": "",
        "query_string": quote(query, safe=_QUERY).encode(),
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
        "client": None,
        "server": None,
        "state": {},
    }
    return cast(HTTPScope, scope)
