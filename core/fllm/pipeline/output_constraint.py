"""Constraints on the output's text, between the request and the backend."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec import Struct

from fllm.constraints import Constraint
from fllm.errors import RequestError
from fllm.interfaces import ConstrainsOutput, Parser
from fllm.values import EngineOutput


class OutputConstraint(Struct, frozen=True):
    """A constraint on each output's text, and the request field that sets it."""

    constraint: Constraint
    param: str


def whole_output_constraint(
    output_constraint: OutputConstraint, reasoning_parser: Parser | None
) -> Constraint:
    """Return the constraint on the whole output, including reasoning that ``reasoning_parser`` will parse.

    Raise `RequestError` if the reasoning parser does not support constraints.
    """
    if reasoning_parser is None:
        return output_constraint.constraint
    if not isinstance(reasoning_parser, ConstrainsOutput):
        raise RequestError(
            f"`{output_constraint.param}` is not supported: this server's reasoning parser does not define "
            "where the reasoning ends, so the text after it can't be constrained",
            param=output_constraint.param,
            code="unsupported_parameter",
        )
    return reasoning_parser.constrain_output(output_constraint.constraint)


async def with_param(
    output_constraint: OutputConstraint, outputs: AsyncGenerator[EngineOutput]
) -> AsyncGenerator[EngineOutput]:
    """Yield the outputs; attribute a `RequestError` without a field to the constraint's field."""
    try:
        async with aclosing(outputs):
            async for output in outputs:
                yield output
    except RequestError as error:
        if error.param is not None:
            raise
        raise RequestError(error.message, param=output_constraint.param, code=error.code) from error
