"""The handler of `GET /`."""

from __future__ import annotations

from litestar import MediaType, get


@get("/", media_type=MediaType.HTML, include_in_schema=False)
async def page() -> str:
    """Return the page."""
    return "<!doctype html><title>furiosa-llm</title>"
