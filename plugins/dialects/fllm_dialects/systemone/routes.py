"""The handlers of `/v1/systemone` and `/v1/decisions`."""

from __future__ import annotations

import uuid

from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Struct

from fllm import USES_ENGINE, ErrorInfo, Serving, error_body
from fllm_dialects.systemone import decisions as openai
from fllm_dialects.systemone import protocol as typesafe
from fllm_dialects.systemone.reader import StateReader


class SystemOneError(Struct, frozen=True):
    """OpenAI's error, and its message where clients of TypeSafe look for it."""

    error: ErrorInfo
    detail: str


def systemone_error(status: int, error: ErrorInfo, request_id: str) -> SystemOneError:  # noqa: ARG001
    """Return the body of an error."""
    return SystemOneError(error, error.message)


@post(
    "/v1/systemone",
    status_code=200,
    opt={**USES_ENGINE, **error_body(systemone_error)},
    tags=["Decisions"],
    summary="Answer typed questions about a state (TypeSafe)",
)
async def systemone(
    data: JSONBody[typesafe.SystemOneRequest], server: NamedDependency[Serving]
) -> typesafe.SystemOneResponse:
    """Return the probabilities of all answers. No text is generated."""
    questions = typesafe.read_questions(data)
    state = typesafe.content_text(data.state)
    answers = await StateReader(server, data.model, state, data.instructions or "").ask(questions, "state")
    return typesafe.new_response(data, answers, f"decision-{uuid.uuid4().hex}")


@post(
    "/v1/decisions",
    status_code=200,
    opt=dict(USES_ENGINE),
    tags=["OpenAI"],
    summary="Answer typed questions about an input (OpenAI)",
)
async def decisions(
    data: JSONBody[openai.DecisionRequest], server: NamedDependency[Serving]
) -> openai.DecisionResponse:
    """Return the probabilities of all answers. No text is generated."""
    questions = openai.read_questions(data)
    answers = await StateReader(server, data.model, openai.input_text(data.input)).ask(questions, "input")
    return openai.new_response(data, answers)
