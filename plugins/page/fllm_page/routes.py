"""The handler of `GET /`."""

from __future__ import annotations

from typing import Any

from litestar import MediaType, Request, Response, get

from fllm import PUBLIC
from fllm_page.document import document

RUNNING = b"furiosa-llm is running\n"


@get("/", media_type=MediaType.HTML, opt=PUBLIC, include_in_schema=False)
async def page(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the page, compressed where the client can read that.

    A client that reads no HTML gets a line: some, such as those of Ollama, ask whether a server runs.
    """
    if not accepts_html(request.headers.get("accept", "")):
        return Response(RUNNING, media_type=MediaType.TEXT)
    found = document()
    if found.etag in request.headers.get("if-none-match", ""):
        return Response(b"", status_code=304, headers=found.headers)
    headers = dict(found.headers)
    content = found.html
    if "gzip" in request.headers.get("accept-encoding", ""):
        content, headers["content-encoding"] = found.compressed, "gzip"
    return Response(content, headers=headers)


def accepts_html(accept: str) -> bool:
    """Return whether a client reads HTML, by its header ``Accept``; without one, it reads everything."""
    kinds = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return not kinds.isdisjoint(("", "*/*", "text/*", "text/html"))
