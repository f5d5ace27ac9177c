from __future__ import annotations

from fllm.testing import Response, RouteRequest, RoutesContract
from fllm_dialects.responses import plugin

BODY = {
    "model": "m",
    "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
    "instructions": "Be terse.",
    "max_output_tokens": 99,
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
    "tool_choice": "none",
    "text": {"format": {"type": "text"}},
    "metadata": {"a": "b"},
    "store": False,
}


class TestResponses(RoutesContract):
    plugin = plugin
    requests = (
        RouteRequest(path="/v1/responses", body=BODY, streamed={"stream": True}),
        RouteRequest(
            path="/v1/responses/input_tokens",
            body={name: BODY[name] for name in ("model", "input", "instructions", "tools")},
            generates=False,
        ),
        RouteRequest(path="/v1/responses/resp_x", method="GET", generates=False, is_valid=False),
        RouteRequest(path="/v1/responses/resp_x", method="DELETE", generates=False, is_valid=False),
        RouteRequest(path="/v1/responses/resp_x/cancel", generates=False, is_valid=False),
    )

    def text(self, response: Response) -> str:
        return "".join(part["text"] for item in response.json()["output"] for part in item["content"])

    def streamed_text(self, response: Response) -> str:
        events = [each.json() for each in response.events() if each.name == "response.output_text.delta"]
        return "".join(event["delta"] for event in events)
