"""A constraint that is refused is replaced by its fallbacks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest

from fllm.constraints import Constraint, ConstString
from fllm.errors import RequestError
from fllm.pipeline.output_constraint import OutputConstraint, constrained_outputs
from fllm.values import EngineOutput

A, B, C = ConstString("a"), ConstString("b"), ConstString("c")


def generator(
    refused: set[Constraint], used: list[Constraint]
) -> Callable[[Constraint], AsyncGenerator[EngineOutput]]:
    async def generate(constraint: Constraint) -> AsyncGenerator[EngineOutput]:
        used.append(constraint)
        if constraint in refused:
            raise RequestError("refused", code="unsupported_schema")
        yield EngineOutput(token_ids=[1])

    return generate


async def collected(outputs: AsyncGenerator[EngineOutput]) -> list[EngineOutput]:
    return [output async for output in outputs]


@pytest.mark.parametrize(
    ("refused", "used"), [(set(), [A]), ({A}, [A, B]), ({A, B}, [A, B, C])], ids=["none", "one", "two"]
)
def test_the_first_constraint_that_is_not_refused_is_used(
    refused: set[Constraint], used: list[Constraint]
) -> None:
    tried: list[Constraint] = []
    outputs = constrained_outputs(OutputConstraint(A, "tools", (B, C)), None, generator(refused, tried))
    assert asyncio.run(collected(outputs)) == [EngineOutput(token_ids=[1])]
    assert tried == used


def test_the_error_of_the_last_fallback_names_the_field() -> None:
    outputs = constrained_outputs(OutputConstraint(A, "tools", (B,)), None, generator({A, B}, []))
    with pytest.raises(RequestError, match="refused") as found:
        asyncio.run(collected(outputs))
    assert (found.value.param, found.value.code) == ("tools", "unsupported_schema")


def test_an_error_after_the_first_output_has_no_fallback() -> None:
    tried: list[Constraint] = []

    async def generate(constraint: Constraint) -> AsyncGenerator[EngineOutput]:
        tried.append(constraint)
        yield EngineOutput(token_ids=[1])
        raise RequestError("too complex")

    outputs = constrained_outputs(OutputConstraint(A, "tools", (B,)), None, generate)
    with pytest.raises(RequestError, match="too complex"):
        asyncio.run(collected(outputs))
    assert tried == [A]
