"""The page at `/schema`: Swagger UI, whose files come from this server."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path
from typing import Any

from litestar import Request, Response, Router, get
from litestar.datastructures import ResponseHeader
from litestar.exceptions import NotFoundException
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.params import FromPath

DIRECTORY = Path(__file__).parent / "swagger_ui"
VERSION = "5.35.0"
"""Version of Swagger UI: the addresses of its files change with it."""
MEDIA_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "start.js": "text/javascript",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    ResponseHeader(name="content-security-policy", value=POLICY),
    ResponseHeader(name="x-content-type-options", value="nosniff"),
    ResponseHeader(name="referrer-policy", value="no-referrer"),
)


class SwaggerPage(OpenAPIRenderPlugin):
    """Renders the OpenAPI document without any request to another host."""

    def __init__(self, prefix: str) -> None:
        """Create it for a server whose paths have this prefix."""
        super().__init__(path="/")
        self._base = f"{prefix}/schema"

    def receive_router(self, router: Router) -> None:
        """Add the files, and the headers of all responses."""
        router.response_headers = HEADERS
        router.register(swagger_file)

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        """Return the page."""
        base = f"{self._base}/files/{VERSION}"
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>furiosa-llm: API</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<link rel="icon" href="data:,"><link rel="stylesheet" href="{base}/swagger-ui.css"></head>'
            f'<body><div id="ui" data-url="{self._base}/openapi.json"></div>'
            f'<script src="{base}/swagger-ui-bundle.js"></script><script src="{base}/start.js"></script>'
            "</body></html>\n"
        ).encode()


@get("/files/{version:str}/{name:str}", include_in_schema=False, sync_to_thread=True)
def swagger_file(
    name: FromPath[str], version: FromPath[str], request: Request[Any, Any, Any]
) -> Response[bytes]:
    """Return a file of Swagger UI, compressed where the client can read that."""
    if name not in MEDIA_TYPES or version != VERSION:
        raise NotFoundException(f"there is no file {name!r}")
    headers = {"cache-control": "max-age=86400", "vary": "accept-encoding"}
    content = _read(name)
    if "gzip" in request.headers.get("accept-encoding", ""):
        content, headers["content-encoding"] = _compressed(name), "gzip"
    return Response(content, media_type=MEDIA_TYPES[name], headers=headers)


@cache
def _read(name: str) -> bytes:
    return (DIRECTORY / name).read_bytes()


@cache
def _compressed(name: str) -> bytes:
    return gzip.compress(_read(name))
