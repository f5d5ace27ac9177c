"""OpenAI Agents SDK in its default mode, the Responses API: an agent edits a file.

The client keeps the conversation, or the server does: by its last response, or as a conversation.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from agents import (
    Agent,
    OpenAIConversationsSession,
    Runner,
    function_tool,
    set_default_openai_client,
    set_tracing_disabled,
)
from file_tools import QUESTION, edit_file, read_file
from openai import AsyncOpenAI

set_tracing_disabled(True)
client = AsyncOpenAI(base_url=sys.argv[1], api_key="EMPTY", max_retries=0)
set_default_openai_client(client)
agent = Agent(name="Editor", model="m", tools=[function_tool(read_file), function_tool(edit_file)])


async def main() -> None:
    """Use one event loop, since the client keeps its connections."""
    note = Path("note.txt").read_text()
    whole = await Runner.run(agent, QUESTION)
    Path("note.txt").write_text(note)
    stream = Runner.run_streamed(agent, QUESTION)
    pieces = [
        event.data.delta
        async for event in stream.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    kept = []
    session = OpenAIConversationsSession(openai_client=client)
    for options in ({"auto_previous_response_id": True}, {"session": session}):
        Path("note.txt").write_text(note)
        kept.append((await Runner.run(agent, QUESTION, **options)).final_output)
    found = {
        "kept by the server": kept,
        "items": len(await session.get_items()),
        "answer": whole.final_output,
        "streamed answer": stream.final_output,
        "pieces": pieces,
        "usage": [result.context_wrapper.usage.total_tokens for result in (whole, stream)],
    }
    print(json.dumps(found))


asyncio.run(main())
