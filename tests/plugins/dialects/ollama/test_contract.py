from __future__ import annotations

from fllm.testing import Response, RouteRequest, RoutesContract
from fllm_dialects.ollama import plugin

SETTINGS = {
    "model": "m",
    "stream": False,
    "options": {"num_predict": 64, "seed": 1},
    "format": "",
    "think": False,
}
MESSAGES = [{"role": "user", "content": "Hi"}]


class TestOllama(RoutesContract):
    plugin = plugin
    requests = (
        RouteRequest(
            path="/api/chat",
            body={**SETTINGS, "messages": MESSAGES},
            streamed={"stream": True},
            required=["model"],
        ),
        RouteRequest(
            path="/api/generate",
            body={**SETTINGS, "prompt": "Hi", "system": "Be brief."},
            streamed={"stream": True},
            required=["model"],
        ),
        RouteRequest(path="/api/generate", body={"model": "m"}, generates=False),
        RouteRequest(path="/api/show", body={"model": "scripted"}, generates=False),
        RouteRequest(path="/api/tags", method="GET", generates=False),
        RouteRequest(path="/api/ps", method="GET", generates=False),
        RouteRequest(path="/api/version", method="GET", generates=False),
    )

    def text(self, response: Response) -> str:
        return _text(response.json())

    def streamed_text(self, response: Response) -> str:
        return "".join(map(_text, response.lines()))


def _text(chunk: dict[str, object]) -> str:
    message = chunk.get("message")
    return str(message["content"] if isinstance(message, dict) else chunk["response"])
