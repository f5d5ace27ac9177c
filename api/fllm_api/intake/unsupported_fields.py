"""Fields of OpenAI's API that this server does not support. They are rejected, never ignored."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from fllm.errors import RequestError
from fllm_api.protocol.generation import GenerationRequest


class UnsupportedField(NamedTuple):
    """Reason why a field is rejected, and values that are accepted because they have no effect."""

    reason: str
    accepted: tuple[Any, ...] = ()


UNSUPPORTED_FIELDS = {
    "audio": UnsupportedField("the model generates only text"),
    "chat_template": UnsupportedField("start the server with --trust-request-chat-template to allow it"),
    "function_call": UnsupportedField("use `tool_choice`", ("none",)),
    "functions": UnsupportedField("use `tools`", ([],)),
    "modalities": UnsupportedField(
        'the model generates only text; only ["text"] is accepted', (["text"], [])
    ),
    "prediction": UnsupportedField("the server does not support predicted outputs"),
    "service_tier": UnsupportedField(
        "the server has one tier; only auto and default are accepted", ("auto", "default")
    ),
    "store": UnsupportedField("the server does not store responses", (False,)),
    "suffix": UnsupportedField("the model can only continue a prompt", ("",)),
    "verbosity": UnsupportedField(
        "only medium is accepted; ask for another verbosity in the prompt", ("medium",)
    ),
    "web_search_options": UnsupportedField("this server does not search the web"),
}


def reject_unsupported_fields(request: GenerationRequest, allowed: Collection[str] = ()) -> None:
    """Raise `RequestError` if the request sets an unsupported field that is not in ``allowed``."""
    for name, unsupported in UNSUPPORTED_FIELDS.items():
        value = getattr(request, name, None)
        if name not in allowed and value is not None and value not in unsupported.accepted:
            raise RequestError(
                f"`{name}` is not supported: {unsupported.reason}", param=name, code="unsupported_parameter"
            )
