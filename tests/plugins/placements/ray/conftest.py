"""One cluster for all tests of this directory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.ray_cluster import RayCluster, ray_cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayCluster]:
    """A cluster of two nodes with two CPUs each, and a head without."""
    with ray_cluster(nodes=2, cpus=2) as cluster:
        yield cluster
