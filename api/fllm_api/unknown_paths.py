"""What to use instead of a path that this server does not have: another spelling of it, or another API."""

from __future__ import annotations

CHAT = "/v1/chat/completions"
ENDPOINTS = (CHAT, "/v1/completions", "/v1/models")
"""Paths that clients find with a base URL that lacks ``/v1``, or has it twice."""

OLLAMA = tuple(
    f"/api/{name}" for name in ("chat", "generate", "embed", "embeddings", "tags", "show", "ps", "version")
)
"""What the plugin ollama offers of Ollama's API."""

OTHER_APIS = {
    "/responses": "/v1/responses is an endpoint of the plugin responses",
    "/conversations": "/v1/conversations is an endpoint of the plugin responses",
    "/messages/batches": "use OpenAI's /v1/batches, an endpoint of the plugin batches",
    "/messages": "/v1/messages is an endpoint of the plugin messages",
    "/complete": f"Anthropic's Completions API is not offered; use {CHAT}",
    **{path: f"{path} is an endpoint of the plugin ollama" for path in OLLAMA},
    "/api": f"of Ollama's API, the plugin ollama offers {', '.join(OLLAMA)}",
    "/systemone": "/v1/systemone is an endpoint of the plugin systemone",
    "/decisions": "/v1/decisions is an endpoint of the plugin systemone",
    "/completion": "llama.cpp's own API is not offered; use /v1/completions",
    "/infill": "llama.cpp's own API is not offered; use /v1/completions with `suffix`",
    "/generate": "Text Generation Inference's API is not offered; use /v1/completions",
    "/embeddings": "/v1/embeddings is an endpoint of the plugin pooling",
    "/embed": "use /v1/embeddings, an endpoint of the plugin pooling",
    "/pooling": "use /v1/embeddings, an endpoint of the plugin pooling",
    "/rerank": "/rerank is an endpoint of the plugin pooling",
    "/score": "/score is an endpoint of the plugin pooling",
    "/classify": "/classify is an endpoint of the plugin pooling",
    "/moderations": "moderation is not offered",
    "/audio": "audio is not offered",
    "/images": "images are not offered",
    "/videos": "videos are not offered",
    "/realtime": "the Realtime API is not offered",
    "/files": "/v1/files is an endpoint of the plugin batches",
    "/batches": "/v1/batches is an endpoint of the plugin batches",
    "/uploads": "uploads in parts are not offered; use /v1/files, an endpoint of the plugin batches",
    "/fine_tuning": "fine-tuning is not offered",
    "/assistants": f"the Assistants API is not offered; use {CHAT}",
    "/threads": f"the Assistants API is not offered; use {CHAT}",
    "/vector_stores": "vector stores are not offered",
    "/tokenize": "/tokenize is an endpoint of the plugin tokens",
    "/detokenize": "/detokenize is an endpoint of the plugin tokens",
    "/apply-template": "/apply-template is an endpoint of the plugin tokens",
    "/load_lora_adapter": "start the server with --enable-runtime-lora-loading",
    "/unload_lora_adapter": "start the server with --enable-runtime-lora-loading",
    "/docs": "the description of this API is at /schema",
    "/redoc": "the description of this API is at /schema",
    "/openapi.json": "the description of this API is at /schema/openapi.json",
}
"""What clients ask of other servers, or of a plugin that is disabled, with or without ``/v1``.

Longer paths come before their beginnings.
"""


def path_hint(path: str) -> str:
    """Return what to use instead of an unknown path, or an empty text."""
    path = path.rstrip("/")
    if path in ("", "/v1"):
        return f"the endpoints are {', '.join(ENDPOINTS)}; /schema describes them"
    bare = _without_version(path)
    if any(_is_below(f"/v1{bare}", endpoint) for endpoint in ENDPOINTS):
        return f"use /v1{bare}; the base URL of clients ends with /v1"
    return next((hint for known, hint in OTHER_APIS.items() if _is_below(bare, known)), "")


def _without_version(path: str) -> str:
    """Return the path without any ``/v1`` at its beginning."""
    while _is_below(path, "/v1"):
        path = path.removeprefix("/v1")
    return path


def _is_below(path: str, parent: str) -> bool:
    return path == parent or path.startswith(f"{parent}/")
