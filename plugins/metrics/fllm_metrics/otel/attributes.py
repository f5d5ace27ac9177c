"""Span attributes of a request, by OpenTelemetry's conventions for HTTP servers and generative AI."""

from __future__ import annotations

from fllm import RequestRecord

Value = str | int | float | bool | list[str]

OPERATIONS = {"/chat/completions": "chat", "/responses": "chat", "/completions": "text_completion"}
PROVIDER = "furiosa_llm"


def attributes_of(request: RequestRecord, model_name: str) -> dict[str, Value]:
    """Return all known attributes of a finished request."""
    known: dict[str, Value | None] = {
        "http.request.method": request.method,
        "url.path": request.path,
        "http.response.status_code": request.status,
        "http.request.header.x-request-id": [request.request_id],
        "gen_ai.operation.name": operation(request.path),
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": model_name,
        "furiosa_llm.client": request.client,
        "furiosa_llm.replicas": [*request.replicas] or None,
        "error.type": error_type(request),
    }
    if request.submitted_at is not None:
        known |= _generation(request, model_name)
    return {name: value for name, value in known.items() if value is not None}


def operation(path: str) -> str:
    """Return the conventions' name of the operation of an OpenAI endpoint."""
    return next((name for end, name in OPERATIONS.items() if path.endswith(end)), "generate_content")


def error_type(request: RequestRecord) -> str | None:
    """Return the status if it is an error, else what ended the response; None for success."""
    if request.error is None:
        return None
    if request.status is not None and request.status >= 400:
        return str(request.status)
    return "error" if "error" in request.finish_reasons else "cancelled"


def _generation(request: RequestRecord, model_name: str) -> dict[str, Value | None]:
    first = request.first_token_at
    return {
        "gen_ai.response.model": request.adapter or model_name,
        "gen_ai.request.max_tokens": request.max_tokens,
        "gen_ai.request.choice.count": request.n if request.n > 1 else None,
        "gen_ai.request.stream": request.streamed,
        "gen_ai.response.finish_reasons": [*request.finish_reasons],
        "gen_ai.response.time_to_first_chunk": None if first is None else first - request.received_at,
        "gen_ai.usage.input_tokens": request.prompt_tokens,
        "gen_ai.usage.output_tokens": request.generated_tokens,
        "gen_ai.usage.cache_read.input_tokens": request.cached_tokens,
    }
