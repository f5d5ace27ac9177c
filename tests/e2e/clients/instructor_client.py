"""instructor in its modes TOOLS and JSON_SCHEMA; its streams are objects that grow."""

from __future__ import annotations

import json
import sys

import instructor
from openai import OpenAI
from orders import CAPITAL, QUESTION, RESULT, Order
from pydantic import BaseModel, Field


class City(BaseModel):
    """A city. Partial objects can't have a UUID."""

    name: str = Field(max_length=20)


found = {}
for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
    openai = OpenAI(base_url=sys.argv[1], api_key="EMPTY", max_retries=0)
    client = instructor.from_openai(openai, mode=mode)
    options = {"model": "m", "temperature": 0, "max_tokens": 200}
    messages = [{"role": "user", "content": QUESTION}]
    order, raw = client.chat.completions.create_with_completion(
        messages=messages, response_model=Order, max_retries=0, **options
    )
    message = raw.choices[0].message
    result = {"role": "user", "content": RESULT}
    if message.tool_calls:
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": RESULT}
    answer = openai.chat.completions.create(messages=[*messages, message, result], **options)
    cities = client.chat.completions.create_partial(
        messages=[{"role": "user", "content": CAPITAL}], response_model=City, max_retries=0, **options
    )
    found[mode.name] = {
        "call": order.model_dump(mode="json"),
        "answer": answer.choices[0].message.content,
        "object": order.model_dump(mode="json"),
        "pieces": [city.model_dump_json() for city in cities],
    }
print(json.dumps(found))
