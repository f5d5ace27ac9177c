"""Constraints on the output's text, between the request and the backend."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from msgspec import Struct

from fllm.constraints import Constraint
from fllm.errors import RequestError
from fllm.interfaces import ConstrainsOutput, Parser
from fllm.values import EngineOutput

log = logging.getLogger("fllm.pipeline")


class OutputConstraint(Struct, frozen=True):
    """A constraint on each output's text, and the request field that sets it."""

    constraint: Constraint
    param: str
    fallbacks: tuple[Constraint, ...] = ()
    """Constraints that are tried in this order if the backend refuses the first one."""


async def constrained_outputs(
    output_constraint: OutputConstraint,
    reasoning_parser: Parser | None,
    generate: Callable[[Constraint], AsyncGenerator[EngineOutput]],
) -> AsyncGenerator[EngineOutput]:
    """Yield the outputs of the first constraint that is not refused; attribute errors to its field."""
    constraints = (output_constraint.constraint, *output_constraint.fallbacks)
    for remaining, constraint in zip(range(len(constraints))[::-1], constraints, strict=True):
        whole = _whole_output_constraint(constraint, reasoning_parser, output_constraint.param)
        started = False
        try:
            async with aclosing(generate(whole)) as outputs:
                async for output in outputs:
                    started = True
                    yield output
            return
        except RequestError as error:
            if started or not remaining:
                param = error.param or output_constraint.param
                raise RequestError(error.message, param=param, code=error.code) from error
            log.info("A constraint is refused and its fallback used: %s", error.message)


def _whole_output_constraint(
    constraint: Constraint, reasoning_parser: Parser | None, param: str
) -> Constraint:
    """Return the constraint on the whole output, including reasoning that ``reasoning_parser`` will parse.

    Raise `RequestError` if the reasoning parser does not support constraints.
    """
    if reasoning_parser is None:
        return constraint
    if not isinstance(reasoning_parser, ConstrainsOutput):
        raise RequestError(
            f"`{param}` is not supported: this server's reasoning parser does not define "
            "where the reasoning ends, so the text after it can't be constrained",
            param=param,
            code="unsupported_parameter",
        )
    return reasoning_parser.constrain_output(constraint)
