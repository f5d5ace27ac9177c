"""What a request demands of the text of its answers, on its way to the backend."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from msgspec import Struct

from fllm.constraints import Constraint
from fllm.errors import RequestError
from fllm.interfaces import Parser
from fllm.values import Step


class Demand(Struct, frozen=True):
    """What each answer must be like, and the field of the request that says so."""

    constraint: Constraint
    param: str


def whole_output(demand: Demand, reasoning: Parser | None) -> Constraint:
    """The language of an output whose answer is as demanded; ``reasoning`` is to read that output."""
    if reasoning is None:
        return demand.constraint
    around: Callable[[Constraint], Constraint] | None = getattr(reasoning, "around", None)
    if around is None:
        raise RequestError(
            f"`{demand.param}`: this server's reasoning parser does not say where the answer begins, "
            "so the answer can't be constrained",
            param=demand.param,
            code="unsupported_parameter",
        )
    return around(demand.constraint)


async def blaming(demand: Demand, steps: AsyncGenerator[Step]) -> AsyncGenerator[Step]:
    """The same steps; a constraint that the backend can't obey is the fault of the field that demands it."""
    try:
        async with aclosing(steps):
            async for step in steps:
                yield step
    except RequestError as error:
        if error.param is not None:
            raise
        raise RequestError(error.message, param=demand.param, code=error.code) from error
