"""LangChain: structured output by each method, and the round trip of a tool call. Prints all as JSON."""

from __future__ import annotations

import json
import sys

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Person(BaseModel):
    """A person."""

    name: str
    age: int


@tool
def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"It is sunny in {city}."


model = ChatOpenAI(
    base_url=sys.argv[1], api_key="EMPTY", model="m", temperature=0, max_tokens=200, max_retries=0
)
question = "Ann is 31 years old. Who is it, and how old?"
found = {
    method: model.with_structured_output(Person, method=method).invoke(question).model_dump()
    for method in ("function_calling", "json_schema")
}
found["json_mode"] = model.with_structured_output(method="json_mode").invoke(f"{question} Answer with JSON.")

messages = [HumanMessage("What is the weather in Paris?")]
call_message = model.bind_tools([get_weather], tool_choice="required", parallel_tool_calls=False).invoke(
    messages
)
results = [
    ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]) for call in call_message.tool_calls
]
answer = model.bind_tools([get_weather]).invoke([*messages, call_message, *results])
found |= {"calls": [call["name"] for call in call_message.tool_calls], "answer": answer.content}
print(json.dumps(found))
