"""LangChain: ``ChatOpenAI``."""

from __future__ import annotations

import json
import sys

from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from orders import CAPITAL, QUESTION, RESULT, TOO_LONG, Order


@tool(args_schema=Order)
def place_order(**order: object) -> str:
    """Order cups."""
    return RESULT


model = ChatOpenAI(
    base_url=sys.argv[1], api_key="EMPTY", model="m", temperature=0, max_tokens=200, max_retries=0
)
messages = [HumanMessage(QUESTION)]
bound = model.bind_tools([place_order], tool_choice="required", parallel_tool_calls=False)
call_message = bound.invoke(messages)
[call] = call_message.tool_calls
result = ToolMessage(place_order.invoke(call["args"]), tool_call_id=call["id"])
answer = model.bind_tools([place_order]).invoke([*messages, call_message, result])
objects = {
    method: model.with_structured_output(Order, method=method).invoke(QUESTION).model_dump(mode="json")
    for method in ("function_calling", "json_schema")
}
found = {
    "call": call["args"],
    "answer": answer.content,
    "object": objects["json_schema"],
    "called object": objects["function_calling"],
    "pieces": [chunk.content for chunk in model.stream(CAPITAL)],
}
try:
    model.invoke(TOO_LONG)
except ContextOverflowError as error:
    found["context_error"] = str(error)
print(json.dumps({"ChatOpenAI": found}))
