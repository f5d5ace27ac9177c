"""The Anthropic SDK: a forced call and its result, an object, and a stream."""

from __future__ import annotations

import json
import sys

from anthropic import Anthropic, BadRequestError
from orders import CAPITAL, QUESTION, RESULT, TOO_LONG, Order

client = Anthropic(base_url=sys.argv[1].removesuffix("/v1"), api_key="EMPTY", max_retries=0)
settings = {"model": "m", "max_tokens": 200, "extra_body": {"temperature": 0}}
tool = {"name": "place_order", "description": "Order cups.", "input_schema": Order.model_json_schema()}
messages = [{"role": "user", "content": QUESTION}]
forced = {"type": "any", "disable_parallel_tool_use": True}
called = client.messages.create(**settings, messages=messages, tools=[tool], tool_choice=forced)
[call] = [block for block in called.content if block.type == "tool_use"]
result = {"type": "tool_result", "tool_use_id": call.id, "content": RESULT}
messages += [{"role": "assistant", "content": called.content}, {"role": "user", "content": [result]}]
answer = client.messages.create(**settings, messages=messages, tools=[tool])
order = client.messages.parse(**settings, messages=messages[:1], output_format=Order).parsed_output
with client.messages.stream(**settings, messages=[{"role": "user", "content": CAPITAL}]) as stream:
    pieces = list(stream.text_stream)
found = {
    "call": call.input,
    "answer": answer.content[0].text,
    "object": order.model_dump(mode="json"),
    "pieces": pieces,
}
try:
    client.messages.create(**settings, messages=[{"role": "user", "content": TOO_LONG}])
except BadRequestError as error:
    found["context_error"] = error.message
print(json.dumps({"messages": found}))
