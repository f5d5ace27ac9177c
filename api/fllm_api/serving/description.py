"""Describe the server to routes of plugins: `fllm.ServerDescription`."""

from __future__ import annotations

from collections.abc import Sequence

from fllm.plugins.listing import list_plugins
from fllm.server_description import ModelDescription, PagePanel, ServerDescription
from fllm_api.app_state import ServerState
from fllm_api.build_info import build
from fllm_api.model_registry import ModelRegistry, ServedModel


def describe_server(
    shared: ServerState, models: ModelRegistry, panels: Sequence[PagePanel]
) -> ServerDescription:
    """Return what the server is now."""
    return ServerDescription(
        version=build().version,
        models=[_describe(served) for served in models.models],
        loads_models=models.selects,
        needs_key=shared.config.keys.required,
        has_admin_routes=bool(shared.config.admin_keys),
        plugins=list_plugins(shared.plugins),
        panels=panels,
    )


def _describe(served: ServedModel) -> ModelDescription:
    loader = served.loader
    parsers = {name: choice.name for name, choice in loader.parser_choices.items()}
    return ModelDescription(
        name=served.name,
        aliases=served.names[1:],
        adapters=[adapter.name for adapter in loader.adapters.loaded],
        state=served.model.state,
        card=loader.card,
        tool_call_parser=parsers.get("tool_call_parser"),
        reasoning_parser=parsers.get("reasoning_parser"),
    )
