"""Prepare requests for the pipeline: small ones at once, large ones in turns by client."""

from __future__ import annotations

from typing import TypeVar

from fllm.concurrency.turn_executor import Pieces, TurnExecutor, run_at_once
from fllm_api.intake.json_body import ApiRequest
from fllm_api.lifecycle.client_disconnect import run_while_connected
from fllm_api.request_context import context_of

T = TypeVar("T")

SMALL_BODY_BYTES = 4096
"""Maximum size of a body that is prepared on the event loop: that takes less than a change of threads."""


async def prepare(request: ApiRequest, work: Pieces[T], turns: TurnExecutor, *, slow: bool = False) -> T:
    """Return the prepared request and charge its client for the work, also if the request is rejected.

    ``slow`` work takes turns whatever the size of the body. Raise the errors of the work, and
    `ClientDisconnected`.
    """
    context = context_of(request.scope)
    charge = context.slot.charge
    if not slow and len(await request.body()) <= SMALL_BODY_BYTES:
        return run_at_once(work, charge)
    return await run_while_connected(request.receive, turns.run(work, context.client, charge))
