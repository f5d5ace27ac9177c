"""instructor in its modes TOOLS and JSON_SCHEMA: a call, its result, a response. Prints all as JSON."""

from __future__ import annotations

import json
import sys
from typing import Literal

import instructor
from openai import OpenAI
from pydantic import BaseModel


class Weather(BaseModel):
    """Get the weather of a city."""

    city: str
    unit: Literal["celsius", "fahrenheit"]


class Answer(BaseModel):
    """The response to the user."""

    sky: Literal["clear", "cloudy"]
    sure: bool


found = {}
for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
    openai = OpenAI(base_url=sys.argv[1], api_key="EMPTY", max_retries=0)
    client = instructor.from_openai(openai, mode=mode)
    options = {"model": "m", "temperature": 0, "max_tokens": 300, "max_retries": 1}
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    call = client.chat.completions.create(messages=messages, response_model=Weather, **options)
    result = f"It is sunny in {call.city}, at 20 degrees {call.unit}."
    messages += [
        {"role": "assistant", "content": call.model_dump_json()},
        {"role": "user", "content": f"{result} What do you say?"},
    ]
    answer = client.chat.completions.create(messages=messages, response_model=Answer, **options)
    found[mode.name] = {"call": call.model_dump(), "answer": answer.model_dump()}
print(json.dumps(found))
