"""OpenAI Agents SDK on chat completions: a forced call, its result, a response. Prints all as JSON."""

from __future__ import annotations

import json
import sys

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Runner,
    ToolCallItem,
    ToolCallOutputItem,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

set_tracing_disabled(True)


@function_tool
def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"It is sunny in {city}."


agent = Agent(
    name="Forecaster",
    instructions="Answer in one short sentence.",
    model=OpenAIChatCompletionsModel(
        model="m", openai_client=AsyncOpenAI(base_url=sys.argv[1], api_key="EMPTY", max_retries=0)
    ),
    tools=[get_weather],
    model_settings=ModelSettings(
        tool_choice="required", parallel_tool_calls=False, temperature=0, max_tokens=200
    ),
)
result = Runner.run_sync(agent, "What is the weather in Paris?", max_turns=4)
found = {
    "calls": [item.raw_item.name for item in result.new_items if isinstance(item, ToolCallItem)],
    "results": [item.output for item in result.new_items if isinstance(item, ToolCallOutputItem)],
    "answer": result.final_output,
}
print(json.dumps(found))
