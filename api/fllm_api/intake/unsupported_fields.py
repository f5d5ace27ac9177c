"""Fields that OpenAI or vLLM know and this server does not serve: an honest 400, never silence."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from fllm.errors import RequestError
from fllm_api.protocol.generation import GenerationRequest


class UnsupportedField(NamedTuple):
    """Why a field is refused, and the values that ask for nothing."""

    why: str
    harmless: tuple[Any, ...] = ()


UNSUPPORTED_FIELDS = {
    "audio": UnsupportedField("this model answers in text"),
    "chat_template": UnsupportedField(
        "the server's template is used, unless it is started with --trust-request-chat-template"
    ),
    "function_call": UnsupportedField("it was replaced by `tool_choice`"),
    "functions": UnsupportedField("it was replaced by `tools`"),
    "modalities": UnsupportedField('this model answers in text: only ["text"] is served', (["text"],)),
    "prediction": UnsupportedField("predicted outputs are not offered"),
    "service_tier": UnsupportedField(
        "there is one tier: only auto and default are served", ("auto", "default")
    ),
    "store": UnsupportedField("answers are not kept", (False,)),
    "suffix": UnsupportedField("text can't be inserted: the model only continues a prompt", ("",)),
    "verbosity": UnsupportedField("only medium is served; ask for it in the prompt", ("medium",)),
    "web_search_options": UnsupportedField("this server does not search the web"),
}


def reject_unsupported_fields(request: GenerationRequest, but: Collection[str] = ()) -> None:
    """Raise `RequestError` for the first field that asks for something that is not offered, ``but`` these."""
    for name, unserved in UNSUPPORTED_FIELDS.items():
        value = getattr(request, name, None)
        if name not in but and value is not None and value not in unserved.harmless:
            raise RequestError(
                f"`{name}` is not supported: {unserved.why}", param=name, code="unsupported_parameter"
            )
