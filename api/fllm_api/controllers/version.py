"""`GET /version`."""

from __future__ import annotations

from litestar import Controller, get
from litestar.di import NamedDependency

from fllm_api.app_state import ServerState
from fllm_api.build_info import build
from fllm_api.model_registry import ModelRegistry
from fllm_api.openapi.responses import errors
from fllm_api.protocol.version import PluginVersion, VersionInfo


class VersionController(Controller):
    """Describes the installed software."""

    path = "/version"
    tags = ("Server",)

    @get(responses=errors(401), summary="Show the versions of all components")
    async def version(
        self, shared: NamedDependency[ServerState], models: NamedDependency[ModelRegistry]
    ) -> VersionInfo:
        """Return the versions of the server, its backend and its plugins."""
        own = build()
        first = models.models[0].loader
        return VersionInfo(
            version=own.version,
            build=own,
            backend={"name": first.backend_name, **(first.card.runtime if first.card else {})},
            plugins=[
                PluginVersion(
                    name=report.name,
                    version=report.version,
                    distribution=report.distribution,
                    error=report.error,
                )
                for report in shared.plugins.reports
                if not report.disabled
            ],
        )
