"""LangChain: ``ChatOpenAI`` with the Responses API edits a file, streamed or not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from file_tools import QUESTION, edit_file, read_file
from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

tools = {function.__name__: tool(function) for function in (read_file, edit_file)}


def answer(streaming: bool) -> dict[str, Any]:
    """Call tools until the model answers."""
    model = ChatOpenAI(
        base_url=sys.argv[1],
        api_key="EMPTY",
        model="m",
        use_responses_api=True,
        streaming=streaming,
        max_retries=0,
        reasoning={"effort": "low"},
    ).bind_tools(list(tools.values()))
    messages: list[BaseMessage] = [HumanMessage(QUESTION)]
    while True:
        message = model.invoke(messages)
        messages.append(message)
        if not message.tool_calls:
            return {"text": message.text, "tokens": message.usage_metadata["output_tokens"]}
        for call in message.tool_calls:
            result = tools[call["name"]].invoke(call["args"])
            messages.append(ToolMessage(result, tool_call_id=call["id"]))


note = Path("note.txt").read_text()
whole = answer(streaming=False)
Path("note.txt").write_text(note)
print(json.dumps({"whole": whole, "streamed": answer(streaming=True)}))
