"""Reserve resources on a Ray cluster, and describe what it has. Runs in the driver's process only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.util import placement_group, remove_placement_group
from ray.util.placement_group import PlacementGroup

from fllm_placements.ray.messages import Place

POLL_SECONDS = 1.0
"""Seconds between two looks at a pending placement group."""
MAX_NODES = 8
"""Nodes that a message lists."""


class NoRoomError(Exception):
    """The cluster did not have the resources in time."""


async def reserve(
    place: Place, name: str, target: str | None, on_waiting: Callable[[str], None]
) -> PlacementGroup:
    """Return a placement group of one bundle, which one node holds. Raise `NoRoomError` after the timeout.

    No other group of the cluster may have its name. Ray places it on the node ``target`` if there is room,
    else where most is free. A pending group is what makes Ray's autoscaler add a node.
    """
    strategy = "STRICT_PACK" if target else "SPREAD"  # only this one takes a target node
    group: PlacementGroup = placement_group([dict(place.bundle)], strategy, name, _soft_target_node_id=target)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + place.timeout
    told = False
    try:
        while not await asyncio.to_thread(group.wait, min(POLL_SECONDS, max(0.1, deadline - loop.time()))):
            reason = no_room(place.bundle)
            if loop.time() >= deadline:
                raise NoRoomError(
                    f"{reason}; waited {place.timeout:g} s (--placement-option resource_timeout)"
                )
            if not told:
                on_waiting(reason)
            told = True
    except BaseException:  # passed on: the group must not stay
        remove_placement_group(group)
        raise
    return group


def preferred_node(place: Place, used: Sequence[str]) -> str | None:
    """Return the id of the node for an engine; ``used`` are those of other engines, oldest first.

    ``PACK``: the last one. ``SPREAD``: one with the fewest engines, of the nodes that are large enough. Ray
    itself spreads only the bundles of one group, and an engine that comes back is a new group.
    """
    if place.strategy == "PACK":
        return used[-1] if used else None
    large = [
        node["NodeID"]
        for node in ray.nodes()
        if node["Alive"] and all(node["Resources"].get(each, 0) >= n for each, n in place.bundle.items())
    ]
    return min(large, key=used.count, default=None)


def no_room(bundle: Mapping[str, float]) -> str:
    """Return what is asked for, what each node has, and what is free."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    listed = [f"{node['NodeManagerAddress']} ({_amounts(bundle, node['Resources'])})" for node in nodes]
    if len(listed) > MAX_NODES:
        listed[MAX_NODES:] = [f"{len(listed) - MAX_NODES} more"]
    return (
        f"the Ray cluster has no node with {_amounts(bundle, bundle)} free; "
        f"its nodes: {', '.join(listed)}; free in all: {_amounts(bundle, ray.available_resources())}"
    )


def _amounts(names: Mapping[str, float], amounts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {amounts.get(name, 0):g}" for name in names)
