"""The options of the backend. Imports little, because `furiosa-llm plugins` reads them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Send = Literal["auto", "ids", "text"]
Receive = Literal["auto", "ids", "text"]
ServerKind = Literal["auto", "vllm", "furiosa", "llama.cpp", "openai"]


class OpenAIOptions(Struct, frozen=True, kw_only=True):
    """Values of ``--backend-option KEY=VALUE``."""

    url: Annotated[str, Meta(pattern="^https?://[^/]", description="base URL, such as http://host:8000/v1")]
    api_key: Annotated[str, Meta(pattern="^[!-~]+$", description="sent as a bearer token")] | None = None
    model: (
        Annotated[
            str, Meta(description="name of the model on the upstream server; required if it serves several")
        ]
        | None
    ) = None
    server: Annotated[
        ServerKind, Meta(description="kind of the upstream server; auto: detected from its list of models")
    ] = "auto"
    send: Annotated[
        Send, Meta(description="send prompts as token ids or as text; auto: ids if the server accepts them")
    ] = "auto"
    receive: Annotated[
        Receive, Meta(description="receive token ids or text; auto: ids if the server returns them")
    ] = "auto"
    timeout: Annotated[float, Meta(gt=0, description="seconds without a byte before a request fails")] = 600.0
    constraints: Annotated[
        Literal["none", "vllm"], Meta(description="vllm: forward constraints as structured_outputs")
    ] = "none"
