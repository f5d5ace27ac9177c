"""`GET /page/server`, `/page/plugins` and `/page/panels/NAME.js`: what the page learns about the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from msgspec import Struct

from fllm import ADMIN_TOO, PUBLIC, Client, ModelDescription, PagePanel, SamplingDefaults, ServerDescription
from fllm.plugins.listing import Listing, without_texts

NO_STORE: Mapping[str, str] = {"cache-control": "no-store"}


class Capabilities(Struct, frozen=True, kw_only=True):
    """What a model can do."""

    chat: bool
    """Whether it generates text; if not, it pools."""
    images: bool
    tools: bool
    reasoning: bool
    """Whether a parser separates its reasoning."""
    grammars: bool
    """Whether its output can be constrained."""


class PageModel(Struct, frozen=True, kw_only=True):
    """A model for the page. Values that are not known before it is loaded are null."""

    name: str
    aliases: Sequence[str]
    adapters: Sequence[str]
    state: str
    max_model_len: int | None
    sampling_defaults: SamplingDefaults | None
    capabilities: Capabilities | None
    tool_call_parser: str | None
    reasoning_parser: str | None


class PanelLink(Struct, frozen=True):
    """A panel of a plugin."""

    name: str
    title: str
    script: str
    """Address of its script, relative to the page."""


class PageServer(Struct, frozen=True, kw_only=True):
    """Response of `GET /page/server`."""

    version: str
    models: list[PageModel]
    loads_models: bool
    """Whether models are loaded on demand."""
    max_model_len: int | None
    """That of the first model, like the defaults."""
    sampling_defaults: SamplingDefaults | None
    needs_key: bool
    can_admin: bool
    """Whether the server has admin routes, which need a key of their own."""
    panels: list[PanelLink]


def description_routes(describe: Callable[[], ServerDescription]) -> Iterable[HTTPRouteHandler]:
    """Return the handlers."""

    @get(
        "/page/server",
        opt=ADMIN_TOO,
        include_in_schema=False,
        response_headers=NO_STORE,
        sync_to_thread=False,
    )
    def server() -> PageServer:
        """Return what the server is and has."""
        return page_server(describe())

    @get(
        "/page/plugins",
        opt=ADMIN_TOO,
        include_in_schema=False,
        response_headers=NO_STORE,
        sync_to_thread=False,
    )
    def plugins(client: NamedDependency[Client]) -> Struct | None:
        """Return what ``furiosa-llm plugins --json`` prints, without what a client must not see of others."""
        found = describe().plugins
        return without_texts(found) if isinstance(found, Listing) and not client.sees_all else found

    @get("/page/panels/{script:str}", opt=PUBLIC, include_in_schema=False, sync_to_thread=False)
    def panel(script: FromPath[str]) -> Response[str]:
        """Return the script of a panel. It has no data, and ``import()`` can't send a key."""
        return Response(
            read_panel(script, describe().panels),
            media_type="text/javascript",
            headers={"cache-control": "no-cache", "x-content-type-options": "nosniff"},
        )

    return server, plugins, panel


def page_server(described: ServerDescription) -> PageServer:
    """Return the description for the page."""
    models = [_model(model) for model in described.models]
    first = models[0] if models else None
    return PageServer(
        version=described.version,
        models=models,
        loads_models=described.loads_models,
        max_model_len=first.max_model_len if first else None,
        sampling_defaults=first.sampling_defaults if first else None,
        needs_key=described.needs_key,
        can_admin=described.has_admin_routes,
        panels=[
            PanelLink(panel.name, panel.title, f"page/panels/{panel.name}.js") for panel in described.panels
        ],
    )


def read_panel(script: str, panels: Iterable[PagePanel]) -> str:
    """Return the text of a script. Raise `NotFoundException` if no panel has it."""
    found = next((panel for panel in panels if f"{panel.name}.js" == script), None)
    if found is None:
        raise NotFoundException(f"there is no panel {script.removesuffix('.js')!r}")
    try:
        return found.read()
    except (OSError, UnicodeDecodeError) as error:
        raise NotFoundException(f"the script of the panel {found.name!r} can't be read") from error


def _model(model: ModelDescription) -> PageModel:
    card = model.card
    generates = card is not None and card.pooling is None
    return PageModel(
        name=model.name,
        aliases=model.aliases,
        adapters=model.adapters,
        state=model.state,
        max_model_len=None if card is None else card.max_model_len,
        sampling_defaults=None if card is None else card.defaults,
        capabilities=None
        if card is None
        else Capabilities(
            chat=generates,
            images=card.images is not None,
            tools=generates,
            reasoning=model.reasoning_parser is not None,
            grammars=card.grammar is not None,
        ),
        tool_call_parser=model.tool_call_parser,
        reasoning_parser=model.reasoning_parser,
    )
