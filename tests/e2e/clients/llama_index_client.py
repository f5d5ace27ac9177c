"""LlamaIndex: ``OpenAILike``."""

from __future__ import annotations

import json
import sys

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from orders import CAPITAL, QUESTION, RESULT, Order

model = OpenAILike(
    model="m",
    api_base=sys.argv[1],
    api_key="EMPTY",
    is_chat_model=True,
    is_function_calling_model=True,
    should_use_structured_outputs=True,
    context_window=8192,
    temperature=0,
    max_tokens=200,
    max_retries=0,
)


def place_order(**order: object) -> str:
    """Order cups."""
    return RESULT


tool = FunctionTool.from_defaults(place_order, fn_schema=Order)
messages = [ChatMessage(role="user", content=QUESTION)]
response = model.chat_with_tools([tool], chat_history=messages, tool_required=True)
[call] = model.get_tool_calls_from_response(response)
result = ChatMessage(role="tool", content=RESULT, additional_kwargs={"tool_call_id": call.tool_id})
answer = model.chat_with_tools([tool], chat_history=[*messages, response.message, result])
found = {
    "call": call.tool_kwargs,
    "answer": answer.message.content,
    "object": model.as_structured_llm(Order).chat(messages).raw.model_dump(mode="json"),
    "pieces": [chunk.delta for chunk in model.stream_chat([ChatMessage(role="user", content=CAPITAL)])],
}
print(json.dumps({"OpenAILike": found}))
