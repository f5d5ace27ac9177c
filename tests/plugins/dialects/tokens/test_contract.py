from __future__ import annotations

from fllm.testing import RouteRequest, RoutesContract
from fllm_dialects.tokens import plugin

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


class TestTokens(RoutesContract):
    plugin = plugin
    requests = (
        RouteRequest(path="/tokenize", body={"prompt": "Hi", "return_token_strs": True}, generates=False),
        RouteRequest(path="/tokenize", body={"content": "Hi", "with_pieces": True}, generates=False),
        RouteRequest(path="/detokenize", body={"tokens": [65]}, required=["tokens"], generates=False),
        RouteRequest(path="/apply-template", body=CHAT, required=["messages"], generates=False),
    )
