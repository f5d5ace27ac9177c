"""Give route handlers of plugins access to the engine, under the limits of the server and of the client."""

from __future__ import annotations

from typing import TypeVar

from litestar.di import NamedDependency

from fllm.concurrency.turn_executor import Pieces
from fllm.errors import RequestError
from fllm.interfaces import PoolingBackend
from fllm.values import PoolingInput, PoolingOutput, PoolingRequest
from fllm_api.app_state import AppState
from fllm_api.intake.json_body import ApiRequest
from fllm_api.intake.preparation import prepare
from fllm_api.lifecycle.client_disconnect import run_while_connected
from fllm_api.request_context import context_of

T = TypeVar("T")


class HttpEngineRequest:
    """The `fllm.EngineRequest` of one HTTP request."""

    def __init__(self, request: ApiRequest, server: AppState) -> None:
        self._request = request
        self._server = server

    @property
    def served_model_name(self) -> str:
        """The name of the model in responses."""
        return self._server.config.served_model_name

    async def prepare(self, work: Pieces[T]) -> T:
        """Return the result of the work, and charge the client for it. Raise as `prepare`."""
        return await prepare(self._request, work, self._server.turns)

    async def pool(
        self,
        inputs: list[PoolingInput],
        *,
        dimensions: int | None = None,
        activation: bool | None = None,
        priority: int = 0,
    ) -> PoolingOutput:
        """Return one vector for each input.

        Raise `RequestError`, the errors of `AdmissionSlot.reserve`, or `ClientDisconnected`.
        """
        backend = self._server.backend
        if self._server.card.pooling is None or not isinstance(backend, PoolingBackend):
            raise RequestError("this model generates text; it does not pool", param="model")
        context = context_of(self._request.scope)
        tokens = sum(len(each.token_ids) for each in inputs)
        context.slot.reserve(1, tokens)
        self._request.discard_body()
        tracker = context.tracker
        tracker.submit(prompt_tokens=tokens, max_tokens=None)
        request = PoolingRequest(
            request_id=tracker.key,
            inputs=inputs,
            dimensions=dimensions,
            activation=activation,
            client=context.client,
            priority=priority,
        )
        try:
            output = await run_while_connected(self._request.receive, backend.pool(request))
        except BaseException as error:
            tracker.end(0, "error" if isinstance(error, Exception) else "abort")
            raise
        tracker.step(0, 0, output.queue_time)
        tracker.end(0, "stop")
        return output


def engine_request(request: ApiRequest, server: NamedDependency[AppState]) -> HttpEngineRequest:
    """Return the access of one request (the dependency ``engine_request``)."""
    return HttpEngineRequest(request, server)
