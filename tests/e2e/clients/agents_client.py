"""OpenAI Agents SDK in its default mode, the Responses API."""

from __future__ import annotations

import asyncio
import json
import sys

from agents import (
    Agent,
    ModelSettings,
    Runner,
    ToolCallItem,
    function_tool,
    set_default_openai_client,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from orders import CAPITAL, QUESTION, RESULT, Order

set_tracing_disabled(True)


@function_tool
def place_order(order: Order) -> str:
    """Order cups."""
    return RESULT


set_default_openai_client(AsyncOpenAI(base_url=sys.argv[1], api_key="EMPTY", max_retries=0))
settings = ModelSettings(temperature=0, max_tokens=200)
forced = ModelSettings(tool_choice="required", parallel_tool_calls=False, temperature=0, max_tokens=200)


async def main() -> None:
    """Use one event loop, since the client keeps its connections."""
    seller = Agent(name="Seller", model="m", tools=[place_order], model_settings=forced)
    sold = await Runner.run(seller, QUESTION, max_turns=4)
    [call] = [item.raw_item for item in sold.new_items if isinstance(item, ToolCallItem)]
    reader = Agent(name="Reader", model="m", output_type=Order, model_settings=settings)
    order = (await Runner.run(reader, QUESTION)).final_output
    stream = Runner.run_streamed(Agent(name="Plain", model="m", model_settings=settings), CAPITAL)
    found = {
        "call": json.loads(call.arguments)["order"],
        "answer": sold.final_output,
        "object": order.model_dump(mode="json"),
        "pieces": [
            event.data.delta
            async for event in stream.stream_events()
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
        ],
    }
    print(json.dumps({"responses": found}))


asyncio.run(main())
