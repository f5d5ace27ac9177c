"""Fields that OpenAI or vLLM know and this server does not serve: an honest 400, never silence."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from fllm.errors import RequestError
from fllm_api.protocol.generation import GenerationRequest


class Unserved(NamedTuple):
    """Why a field is refused, and the values that ask for nothing."""

    why: str
    harmless: tuple[Any, ...] = ()


UNSERVED = {
    "audio": Unserved("this model answers in text"),
    "chat_template": Unserved(
        "the server's template is used, unless it is started with --trust-request-chat-template"
    ),
    "function_call": Unserved("it was replaced by `tool_choice`"),
    "functions": Unserved("it was replaced by `tools`"),
    "modalities": Unserved('this model answers in text: only ["text"] is served', (["text"],)),
    "prediction": Unserved("predicted outputs are not offered"),
    "service_tier": Unserved("there is one tier: only auto and default are served", ("auto", "default")),
    "store": Unserved("answers are not kept", (False,)),
    "suffix": Unserved("text can't be inserted: the model only continues a prompt", ("",)),
    "verbosity": Unserved("only medium is served; ask for it in the prompt", ("medium",)),
    "web_search_options": Unserved("this server does not search the web"),
}


def refuse_unserved(request: GenerationRequest, but: Collection[str] = ()) -> None:
    """Raise `RequestError` for the first field that asks for something that is not offered, ``but`` these."""
    for name, unserved in UNSERVED.items():
        value = getattr(request, name, None)
        if name not in but and value is not None and value not in unserved.harmless:
            raise RequestError(
                f"`{name}` is not supported: {unserved.why}", param=name, code="unsupported_parameter"
            )
