"""The OpenAI SDK's responses: ``stream`` with tools, ``parse``, and responses in the background."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from file_tools import QUESTION, edit_file, read_file
from openai import OpenAI
from pydantic import BaseModel

client = OpenAI(base_url=sys.argv[1], api_key="EMPTY", max_retries=0)
functions = {function.__name__: function for function in (read_file, edit_file)}
tools: Any = [
    {
        "type": "function",
        "name": name,
        "strict": False,
        "parameters": {"type": "object", "properties": {key: {"type": "string"} for key in keys}},
    }
    for name, keys in {"read_file": ("path",), "edit_file": ("path", "old", "new")}.items()
]


class Title(BaseModel):
    """An object that the model writes."""

    title: str


def answer(found: dict[str, Any]) -> None:
    """Call tools until the model answers. The server keeps the conversation."""
    messages: Any = [{"role": "user", "content": QUESTION}]
    previous: str | None = None
    while messages:
        events = []
        with client.responses.stream(
            model="m", input=messages, tools=tools, previous_response_id=previous
        ) as stream:
            for event in stream:
                assert event.sequence_number == len(events)
                events.append(event.type)
            response = stream.get_final_response()
        found["events"].append(events)
        messages = [
            {
                "type": "function_call_output",
                "call_id": item.call_id,
                "output": functions[item.name](**json.loads(item.arguments)),
            }
            for item in response.output
            if item.type == "function_call"
        ]
        previous = response.id
    found["answer"] = response.output_text


def in_background() -> dict[str, Any]:
    """Poll a response until it is complete."""
    response = client.responses.create(model="m", input=QUESTION, tools=tools, background=True)
    for _ in range(3000):
        if response.status not in ("queued", "in_progress"):
            break
        time.sleep(0.02)
        response = client.responses.retrieve(response.id)
    client.responses.delete(response.id)
    return {"status": response.status, "types": [item.type for item in response.output]}


def resumed() -> list[str]:
    """Read the first events of a response in the background; read the others through another stream."""
    request: Any = {"model": "m", "input": QUESTION, "tools": tools, "background": True, "stream": True}
    events = []
    with client.responses.create(**request) as stream:
        for event in stream:
            events.append(event)
            if len(events) == 3:
                break
    response_id = events[0].response.id
    with client.responses.retrieve(response_id, stream=True, starting_after=2) as stream:
        events += stream
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return [event.type for event in events]


found: dict[str, Any] = {"events": []}
answer(found)
found["background"] = in_background()
found["resumed"] = resumed()
found["parsed"] = client.responses.parse(
    model="m", input="A title.", text_format=Title
).output_parsed.model_dump()
print(json.dumps(found))
