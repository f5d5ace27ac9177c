"""The OpenAPI document at `/schema`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import msgspec
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import OpenAPI, Server

from fllm.requests.chat import ChatRequest
from fllm.requests.completions import CompletionRequest
from fllm_api.build_info import build
from fllm_api.openapi.page import SwaggerPage
from fllm_api.protocol.chat import ChatCompletion, ChatCompletionChunk
from fllm_api.protocol.completions import Completion, CompletionChunk
from fllm_api.protocol.errors import ErrorResponse
from fllm_api.protocol.models import ModelList
from fllm_api.protocol.version import VersionInfo

BODIES = (
    ChatRequest,
    ChatCompletion,
    ChatCompletionChunk,
    CompletionRequest,
    Completion,
    CompletionChunk,
    ErrorResponse,
    ModelList,
    VersionInfo,
)


def openapi_config(root_path: str) -> OpenAPIConfig:
    """Return the title, version and path of the document, and the path prefix of the server."""
    return _ExactConfig(
        title="furiosa-llm",
        version=build().version,
        path="/schema",
        render_plugins=[
            SwaggerPage(root_path),
            JsonRenderPlugin(),
            YamlRenderPlugin(path=["/openapi.yaml", "/openapi.yml"]),
        ],
        servers=[Server(url=root_path or "/")],
    )


class _ExactConfig(OpenAPIConfig):
    def to_openapi_schema(self) -> OpenAPI:
        """Return Litestar's document as `_ExactOpenAPI`."""
        plain = super().to_openapi_schema()
        return _ExactOpenAPI(**{field.name: getattr(plain, field.name) for field in fields(plain)})


@dataclass
class _ExactOpenAPI(OpenAPI):
    """A document with the schemas of msgspec: Litestar's lose bounds that are 0 or inside a union."""

    def to_schema(self) -> dict[str, Any]:
        """Return the document as plain values."""
        document = super().to_schema()
        _, exact = msgspec.json.schema_components(BODIES, ref_template="#/components/schemas/{name}")
        document["components"]["schemas"].update(exact)
        return document
