"""Fields of OpenAI's API that this server does not support. They are rejected, never ignored."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from fllm.errors import RequestError
from fllm.requests.generation import GenerationRequest


class UnsupportedField(NamedTuple):
    """Reason why a field is rejected, and values that are accepted because they have no effect."""

    reason: str
    accepted: tuple[Any, ...] = ()


_NO_PLUGINS = "this server has no such extension"
_NO_TRANSFER = "this server does not transfer KV caches"
_NO_MEDIA_SETTINGS = "images are prepared by the model's own settings"

UNSUPPORTED_FIELDS = {
    "audio": UnsupportedField("the model generates only text"),
    "chat_template": UnsupportedField("start the server with --trust-request-chat-template to allow it"),
    "function_call": UnsupportedField("use `tool_choice`", ("none",)),
    "functions": UnsupportedField("use `tools`", ([],)),
    "modalities": UnsupportedField(
        'the model generates only text; only ["text"] is accepted', (["text"], [])
    ),
    "ec_transfer_params": UnsupportedField(_NO_TRANSFER, ({},)),
    "guided_whitespace_pattern": UnsupportedField("the white space of JSON is fixed"),
    "kv_transfer_params": UnsupportedField(_NO_TRANSFER, ({},)),
    "logits_processors": UnsupportedField(_NO_PLUGINS, ([],)),
    "media_io_kwargs": UnsupportedField(_NO_MEDIA_SETTINGS, ({},)),
    "mm_processor_kwargs": UnsupportedField(_NO_MEDIA_SETTINGS, ({},)),
    "prompt_embeds": UnsupportedField("send the prompt as text or as token ids"),
    "repetition_detection": UnsupportedField("use `repetition_penalty`, or `stop`"),
    "return_prompt_text": UnsupportedField("use `return_token_ids`", (False,)),
    "return_token_offsets": UnsupportedField("use `echo` with `logprobs` in completions", (False,)),
    "service_tier": UnsupportedField(
        "the server has one tier; only auto and default are accepted", ("auto", "default")
    ),
    "vllm_xargs": UnsupportedField(_NO_PLUGINS, ({},)),
    "verbosity": UnsupportedField(
        "only medium is accepted; ask for another verbosity in the prompt", ("medium",)
    ),
    "watermarking": UnsupportedField("this server adds no watermarks", (False,)),
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
