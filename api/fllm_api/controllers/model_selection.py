"""Find the model that a request names, and wait until it is loaded."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from msgspec import Struct

from fllm_api.app_state import AppState
from fllm_api.intake.json_body import ApiRequest
from fllm_api.lifecycle.client_disconnect import run_while_connected
from fllm_api.model_registry import ModelRegistry
from fllm_api.models.lease import ModelLease
from fllm_api.models.model import Model
from fllm_api.models.waiting_line import Waiter
from fllm_api.request_context import RequestContext, context_of


class _Named(Struct):
    """The fields of a body that are read before its handler runs."""

    model: str | None = None
    stream: Any = None


class ModelSelection:
    """Finds the model of a request, waits until it is loaded, and keeps it loaded for the request."""

    def __init__(self, models: ModelRegistry, keep_alive: float) -> None:
        """Create it with ``keep_alive`` seconds between two comments in a stream that waits; 0: none."""
        self._models = models
        self._keep_alive = keep_alive

    async def select(self, request: ApiRequest) -> AppState:
        """Return the state of the model of a request.

        The model is named by the field ``model`` of the body, or by the query parameter ``model``. Raise
        `ModelNotFound`, `ModelUnavailable` or `ClientDisconnected`.
        """
        context = context_of(request.scope)
        if context.lease is None:
            named = await _read_names(request)
            served = self._models.find(named.model)
            if not request.scope["route_handler"].opt.get("not_tracked"):
                context.tracker.choose_model(served.name)
            context.lease = await self._acquire(request, context, served.model, streams=named.stream is True)
        state: AppState = context.lease.loaded
        return state

    async def _acquire(
        self, request: ApiRequest, context: RequestContext, model: Model[AppState], *, streams: bool
    ) -> ModelLease[AppState]:
        if (lease := self._models.pool.try_acquire(model)) is not None:
            return lease
        waiter = self._models.pool.wait(model, context.client)
        try:
            return await run_while_connected(request.receive, self._wait(context, waiter, streams=streams))
        except BaseException:  # a disconnect or a deadline, which is passed on
            self._models.pool.cancel(waiter)
            raise

    async def _wait(
        self, context: RequestContext, waiter: Waiter[AppState], *, streams: bool
    ) -> ModelLease[AppState]:
        early = context.early_stream
        interval = self._keep_alive if streams and early is not None and early.framing.has_comments else 0
        while not (await asyncio.wait([waiter.lease], timeout=interval or None))[0]:
            assert context.early_stream is not None, "only a stream has an interval"
            await context.early_stream.write_comment(self._models.pool.describe(waiter))
        return waiter.lease.result()


async def _read_names(request: ApiRequest) -> _Named:
    streamed = request.scope["route_handler"].opt.get("streams_body")
    body = b"" if streamed or request.method in ("GET", "HEAD") else await request.body()
    try:
        named = msgspec.json.decode(body, type=_Named) if body else _Named()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the body of a plugin's own format
        named = _Named()
    return named if named.model else _Named(request.query_params.get("model"), named.stream)
