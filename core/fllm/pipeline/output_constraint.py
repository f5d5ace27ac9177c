"""What a request demands of the text of its answers, on its way to the backend."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from msgspec import Struct

from fllm.constraints import Constraint
from fllm.errors import RequestError
from fllm.interfaces import Parser
from fllm.values import EngineOutput


class OutputConstraint(Struct, frozen=True):
    """What each answer must be like, and the field of the request that says so."""

    constraint: Constraint
    param: str


def whole_output(output_constraint: OutputConstraint, reasoning: Parser | None) -> Constraint:
    """The language of an output whose answer is as demanded; ``reasoning`` is to read that output."""
    if reasoning is None:
        return output_constraint.constraint
    around: Callable[[Constraint], Constraint] | None = getattr(reasoning, "constrain_output", None)
    if around is None:
        raise RequestError(
            f"`{output_constraint.param}`: this server's reasoning parser does not say where the answer "
            "begins, so the answer can't be constrained",
            param=output_constraint.param,
            code="unsupported_parameter",
        )
    return around(output_constraint.constraint)


async def with_param(
    output_constraint: OutputConstraint, steps: AsyncGenerator[EngineOutput]
) -> AsyncGenerator[EngineOutput]:
    """The same steps; a constraint that the backend can't obey is the fault of the field that demands it."""
    try:
        async with aclosing(steps):
            async for step in steps:
                yield step
    except RequestError as error:
        if error.param is not None:
            raise
        raise RequestError(error.message, param=output_constraint.param, code=error.code) from error
