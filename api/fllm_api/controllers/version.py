"""`GET /version`."""

from __future__ import annotations

from litestar import Controller, get
from litestar.di import NamedDependency

from fllm_api.app_state import AppState
from fllm_api.build_info import build
from fllm_api.openapi.responses import errors
from fllm_api.protocol.version import PluginVersion, VersionInfo


class VersionController(Controller):
    """Describes the installed software."""

    path = "/version"
    tags = ("Server",)

    @get(responses=errors(401), summary="Show the versions of all components")
    async def version(self, server: NamedDependency[AppState]) -> VersionInfo:
        """Return the versions of the server, its backend and its plugins."""
        own = build()
        return VersionInfo(
            version=own.version,
            build=own,
            backend={"name": server.backend_name, **server.card.runtime},
            plugins=[
                PluginVersion(
                    name=report.name,
                    version=report.version,
                    distribution=report.distribution,
                    error=report.error,
                )
                for report in server.plugins.reports
                if not report.disabled
            ],
        )
