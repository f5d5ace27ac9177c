"""Pydantic AI: ``OpenAIChatModel``, with its outputs as a tool and as native JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from orders import CAPITAL, QUESTION, RESULT, Order
from pydantic_ai import Agent, NativeOutput, RunContext, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

model = OpenAIChatModel("m", provider=OpenAIProvider(base_url=sys.argv[1], api_key="EMPTY"))
settings = ModelSettings(temperature=0, max_tokens=200, parallel_tool_calls=False)
calls: list[dict[str, Any]] = []


def force_first_step(context: RunContext[None]) -> ModelSettings:
    return {**settings, "tool_choice": "required" if context.run_step == 1 else "none"}


seller = Agent(model, model_settings=force_first_step)


@seller.tool_plain
def place_order(order: Order) -> str:
    """Order cups."""
    calls.append(order.model_dump(mode="json"))
    return RESULT


async def pieces() -> list[str]:
    async with Agent(model, model_settings=settings).run_stream(CAPITAL) as stream:
        return [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]


answer = seller.run_sync(QUESTION).output
[call] = calls
found = {
    output.__name__: {
        "call": call,
        "answer": answer,
        "object": Agent(model, output_type=output(Order), model_settings=settings)
        .run_sync(QUESTION)
        .output.model_dump(mode="json"),
        "pieces": asyncio.run(pieces()),
    }
    for output in (ToolOutput, NativeOutput)
}
print(json.dumps(found))
