"""Where engines are placed on a cluster."""

from __future__ import annotations

import pytest
from support.ray_cluster import needs_ray

from fllm import BackendConfig, EngineLaunch
from fllm_placements.ray.messages import Place
from fllm_placements.ray.options import Strategy


@needs_ray
@pytest.mark.parametrize(
    ("strategy", "used", "expected"),
    [
        ("SPREAD", [], "a"),
        ("SPREAD", ["a"], "b"),
        ("SPREAD", ["b", "a", "b"], "a"),
        ("PACK", [], None),
        ("PACK", ["a", "b"], "b"),
    ],
)
def test_engines_are_spread_over_the_nodes_that_are_large_enough(
    strategy: Strategy, used: list[str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from fllm_placements.ray.cluster import preferred_node

    sizes = {"head": 0, "small": 1, "a": 2, "b": 4, "dead": 8}
    nodes = [{"NodeID": n, "Alive": n != "dead", "Resources": {"CPU": size}} for n, size in sizes.items()]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    launch = EngineLaunch(name="e", id="e.0", config=BackendConfig(model="m"), arguments=())
    place = Place(launch, {"CPU": 2.0}, strategy, 1.0)
    assert preferred_node(place, used) == expected
