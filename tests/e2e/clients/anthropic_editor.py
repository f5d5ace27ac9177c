"""The Anthropic SDK: its tool runner edits a file; ``messages.stream`` and ``count_tokens``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from anthropic import Anthropic, beta_tool
from file_tools import QUESTION, edit_file, read_file

client = Anthropic(base_url=sys.argv[1].removesuffix("/v1"), api_key="EMPTY", max_retries=0)
prompt: Any = {"model": "m", "messages": [{"role": "user", "content": QUESTION}]}
tools = [beta_tool(read_file), beta_tool(edit_file)]


def run(stream: bool) -> str:
    """Return the last message's text."""
    runner = client.beta.messages.tool_runner(**prompt, max_tokens=500, tools=tools, stream=stream)
    message = runner.until_done()
    return "".join(block.text for block in message.content if block.type == "text")


note = Path("note.txt").read_text()
answer = run(stream=False)
Path("note.txt").write_text(note)
found = {"answer": answer, "streamed answer": run(stream=True)}
definitions = [tool.to_dict() for tool in tools]
thinking = {"type": "enabled", "budget_tokens": 1024}
with client.messages.stream(**prompt, max_tokens=2000, tools=definitions, thinking=thinking) as stream:
    found["events"] = [event.type for event in stream]
    message = stream.get_final_message()
whole = client.messages.create(**prompt, max_tokens=2000, tools=definitions, thinking=thinking)
found["streamed"], found["whole"] = (
    {
        "content": [
            {key: value for key, value in block.to_dict().items() if key not in ("id", "signature")}
            for block in each.content
        ],
        "stop_reason": each.stop_reason,
        "tokens": [
            each.usage.input_tokens + (each.usage.cache_read_input_tokens or 0),
            each.usage.output_tokens,
        ],
    }
    for each in (message, whole)
)
found["count"] = client.messages.count_tokens(**prompt, tools=definitions).input_tokens
print(json.dumps(found))
