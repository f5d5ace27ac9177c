"""`GET /version`."""

from __future__ import annotations

from litestar import Controller, get
from litestar.di import NamedDependency

from fllm_api.app_state import AppState
from fllm_api.build_info import build
from fllm_api.openapi.responses import errors
from fllm_api.protocol.version import PluginVersion, VersionInfo


class VersionController(Controller):
    """What runs here."""

    path = "/version"
    tags = ("Server",)

    @get(responses=errors(401), summary="Tell the versions of all parts")
    async def version(self, server: NamedDependency[AppState]) -> VersionInfo:
        """The versions of the server, its backend and its plugins."""
        ours = build()
        return VersionInfo(
            version=ours.version,
            build=ours,
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
