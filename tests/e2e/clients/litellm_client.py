"""LiteLLM, with the providers ``openai`` and ``hosted_vllm``."""

from __future__ import annotations

import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # otherwise it is downloaded

import litellm
from orders import CAPITAL, QUESTION, RESULT, TOO_LONG, Order

FUNCTION = {"name": "place_order", "description": "Order cups.", "parameters": Order.model_json_schema()}
PLACE_ORDER = {"type": "function", "function": FUNCTION}

litellm.suppress_debug_info = True  # it is printed on stdout
options = {
    "api_base": sys.argv[1],
    "api_key": "EMPTY",
    "temperature": 0,
    "max_tokens": 200,
    "max_retries": 0,
}
messages = [{"role": "user", "content": QUESTION}]
found = {}
for model in ("openai/m", "hosted_vllm/m"):
    called = litellm.completion(
        model, messages, tools=[PLACE_ORDER], tool_choice="required", parallel_tool_calls=False, **options
    )
    message = called.choices[0].message
    [call] = message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": RESULT}
    answer = litellm.completion(model, [*messages, message, result], tools=[PLACE_ORDER], **options)
    structured = litellm.completion(model, messages, response_format=Order, **options)
    stream = litellm.completion(model, [{"role": "user", "content": CAPITAL}], stream=True, **options)
    found[model] = {
        "call": json.loads(call.function.arguments),
        "answer": answer.choices[0].message.content,
        "object": json.loads(structured.choices[0].message.content),
        "pieces": [chunk.choices[0].delta.content or "" for chunk in stream],
    }
    try:
        litellm.completion(model, [{"role": "user", "content": TOO_LONG}], **options)
    except litellm.ContextWindowExceededError as error:
        found[model]["context_error"] = str(error)
print(json.dumps(found))
