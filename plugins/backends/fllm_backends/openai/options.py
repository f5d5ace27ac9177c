"""What ``--backend-option`` says of the server behind. Light: `furiosa-llm plugins` reads it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Send = Literal["auto", "ids", "text"]
Receive = Literal["auto", "ids", "text"]
ServerKind = Literal["auto", "vllm", "furiosa", "llama.cpp", "openai"]


class OpenAIOptions(Struct, frozen=True, kw_only=True):
    """``--backend-option KEY=VALUE``."""

    url: Annotated[str, Meta(pattern="^https?://[^/]", description="base URL, such as http://host:8000/v1")]
    api_key: Annotated[str, Meta(pattern="^[!-~]+$", description="sent as a bearer token")] | None = None
    model: (
        Annotated[str, Meta(description="the model's name there; needed where it serves several")] | None
    ) = None
    server: Annotated[ServerKind, Meta(description="what it is; auto: as its list of models tells")] = "auto"
    send: Annotated[
        Send, Meta(description="prompts as token ids or as text; auto: ids where it takes them")
    ] = "auto"
    receive: Annotated[
        Receive, Meta(description="answers as token ids or as text; auto: ids where it gives them")
    ] = "auto"
    timeout: Annotated[float, Meta(gt=0, description="seconds without a byte before a request fails")] = 600.0
    constraints: Annotated[
        Literal["none", "vllm"], Meta(description="vllm: hand constraints on as structured_outputs")
    ] = "none"
