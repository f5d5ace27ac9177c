"""Register the placements on other machines. Each is imported only when it is chosen."""

from __future__ import annotations

from collections.abc import Iterator

from fllm import PlacementEntry, hookimpl
from fllm_placements.ray.options import RayOptions


@hookimpl
def fllm_placements() -> Iterator[PlacementEntry]:
    """Register the placement on a Ray cluster."""
    yield PlacementEntry(
        "ray",
        "fllm_placements.ray.placement:RayPlacement",
        "actors on the nodes of a Ray cluster ",
        extra="ray",
        options=RayOptions,
    )
