from __future__ import annotations

from fllm.testing import Response, RouteRequest, RoutesContract
from fllm_dialects.messages import plugin

BODY = {
    "model": "m",
    "max_tokens": 99,
    "system": [{"type": "text", "text": "Be terse."}],
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    "stop_sequences": ["STOP"],
    "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "none"},
    "temperature": 1.0,
    "metadata": {"user_id": "u"},
}
REQUIRED = ("messages",)


class TestMessages(RoutesContract):
    plugin = plugin
    requests = (
        RouteRequest(
            path="/v1/messages", body=BODY, streamed={"stream": True}, required=(*REQUIRED, "max_tokens")
        ),
        RouteRequest(
            path="/v1/messages/count_tokens",
            body={name: BODY[name] for name in ("model", "system", "messages", "tools")},
            required=REQUIRED,
            generates=False,
        ),
    )

    def text(self, response: Response) -> str:
        return "".join(block["text"] for block in response.json()["content"])

    def streamed_text(self, response: Response) -> str:
        deltas = [each.json()["delta"] for each in response.events() if each.name == "content_block_delta"]
        return "".join(delta["text"] for delta in deltas)
