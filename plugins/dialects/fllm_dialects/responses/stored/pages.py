"""Pages of items: the parameters of a list, and its response."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from litestar.params import QueryParameter

from fllm import RequestError
from fllm_dialects.responses.protocol.conversations import ItemList
from fllm_dialects.responses.protocol.items import InputItem
from fllm_dialects.store import Page

Limit: TypeAlias = Annotated[int, QueryParameter(ge=1, le=100, description="Maximum number of items.")]
Order: TypeAlias = Annotated[Literal["asc", "desc"], QueryParameter(description="`desc`: newest first.")]
After: TypeAlias = Annotated[str, QueryParameter(description="Id of the item before the page.")]
Before: TypeAlias = Annotated[str, QueryParameter(description="Id of the item after the page.")]


def page_of(limit: int, order: Literal["asc", "desc"], after: str, before: str = "") -> Page:
    """Return a page with one more item, which tells whether there are more."""
    return Page(limit + 1, order, after, before)


def item_list(found: list[InputItem] | None, page: Page) -> ItemList:
    """Return the response for the items that were found. Raise `RequestError` if there is no such page."""
    if found is None:
        param = "after" if page.after else "before"
        raise RequestError(f"`{param}`: there is no such item", param=param)
    items = found[: page.limit - 1]
    return ItemList(
        data=items,
        first_id=str(items[0].id) if items else None,
        last_id=str(items[-1].id) if items else None,
        has_more=len(found) > len(items),
    )
