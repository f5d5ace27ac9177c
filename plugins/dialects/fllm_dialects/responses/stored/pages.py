"""Pages of items: the parameters of a list, and its response."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated, Literal, TypeAlias

from litestar.params import QueryParameter
from msgspec.structs import replace

from fllm import RequestError
from fllm_dialects.responses.protocol.conversations import ItemList
from fllm_dialects.responses.protocol.items import InputItem
from fllm_dialects.responses.stored.items import decode_item
from fllm_dialects.store import Page, Records

Limit: TypeAlias = Annotated[int, QueryParameter(ge=1, le=100, description="Maximum number of items.")]
Order: TypeAlias = Annotated[Literal["asc", "desc"], QueryParameter(description="`desc`: newest first.")]
After: TypeAlias = Annotated[str, QueryParameter(description="Id of the item before the page.")]
Before: TypeAlias = Annotated[str, QueryParameter(description="Id of the item after the page.")]


MAX_PAGE_BYTES = 16 << 20
"""Size of a page after which it has no more items. Its first item can be larger."""


def page_of(limit: int, order: Literal["asc", "desc"], after: str, before: str = "") -> Page:
    """Return a page with one more item, which tells whether there are more."""
    return Page(limit + 1, order, after, before)


async def read_page(
    records: Records, parent: str, owner: str, page: Page, *, kinds: Sequence[str] = ()
) -> ItemList:
    """Return a page of the items below a record. Raise `RequestError` if there is no such page."""
    sizes = await records.child_sizes(parent, owner, page, kinds=kinds)
    if sizes is None:
        param = "after" if page.after else "before"
        raise RequestError(f"`{param}`: there is no such item", param=param)
    fitting = sum(total <= MAX_PAGE_BYTES for total in accumulate(sizes))
    shown = replace(page, limit=min(max(fitting, 1), page.limit - 1))
    found = await records.children(parent, owner, shown, kinds=kinds) or []
    return item_list([decode_item(each.body) for each in found], has_more=len(sizes) > len(found))


def item_list(items: list[InputItem], *, has_more: bool = False) -> ItemList:
    """Return the response for items."""
    first, last = (str(items[0].id), str(items[-1].id)) if items else (None, None)
    return ItemList(data=items, first_id=first, last_id=last, has_more=has_more)
