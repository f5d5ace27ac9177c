"""Ollama's client: ``chat`` with Python functions as tools edits a file, streamed or not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from file_tools import QUESTION, edit_file, read_file
from ollama import Client

client = Client(host=sys.argv[1].removesuffix("/v1"))
functions = {function.__name__: function for function in (read_file, edit_file)}


def chat(messages: list[Any], stream: bool) -> dict[str, Any]:
    """Return the message of a response, and the number of its tokens."""
    made = client.chat("m", messages=messages, tools=[read_file, edit_file], think=True, stream=stream)
    parts = list(made) if stream else [made]
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    return {
        "message": {
            "role": "assistant",
            "content": "".join(part.message.content or "" for part in parts),
            "thinking": "".join(part.message.thinking or "" for part in parts),
            "tool_calls": [call.model_dump() for part in parts for call in part.message.tool_calls or ()],
        },
        "tokens": [parts[-1].prompt_eval_count, parts[-1].eval_count],
    }


def answer(stream: bool) -> list[dict[str, Any]]:
    """Call tools until the model answers; return its responses."""
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    responses = []
    while len(responses) < 4:
        responses.append(chat(messages, stream))
        message = responses[-1]["message"]
        messages.append(message)
        if not message["tool_calls"]:
            break
        for call in message["tool_calls"]:
            function = call["function"]
            result = functions[function["name"]](**function["arguments"])
            messages.append({"role": "tool", "tool_name": function["name"], "content": result})
    return responses


note = Path("note.txt").read_text()
whole = answer(stream=False)
Path("note.txt").write_text(note)
print(json.dumps({"whole": whole, "streamed": answer(stream=True)}))
