"""A Ray cluster on this machine: a head without CPUs, and nodes that can be added and removed.

It runs in a process of its own, so that a test does not import Ray:
``python ray_cluster.py NODES CPUS`` prints its address, and then obeys ``add`` and ``remove NODE``.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

REASON = "there is no wheel of Ray for this Python and platform"
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason=REASON)

OBJECT_STORE = 80 * 1024 * 1024
"""Bytes, the minimum: tokens never pass through it."""


class RayCluster:
    """The test's side of a cluster."""

    def __init__(self, process: subprocess.Popen[str], mark: str) -> None:
        self.mark = mark
        """A part of the environment of all processes of this cluster."""
        self._process = process
        self.address, *self.nodes = self._read()

    def add(self) -> str:
        """Add a node; return its id."""
        [node] = self._call("add")
        self.nodes.append(node)
        return node

    def remove(self, node: str) -> None:
        """Remove the node whose id begins so: its processes are killed."""
        self._call(f"remove {node}")
        self.nodes = [each for each in self.nodes if not each.startswith(node)]

    def _call(self, command: str) -> list[str]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> list[str]:
        assert self._process.stdout is not None
        for line in self._process.stdout:  # Ray prints lines, too
            if line.startswith("cluster:"):
                return line.split()[1:]
        raise AssertionError("the cluster has ended")


@contextmanager
def ray_cluster(nodes: int = 2, cpus: int = 2) -> Iterator[RayCluster]:
    """Start a cluster, and end it and all its processes at exit."""
    mark = f"FLLM_TEST_CLUSTER={secrets.token_hex()}"
    process = subprocess.Popen(
        [sys.executable, __file__, str(nodes), str(cpus)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_metrics_collection": "0"}
        | dict([mark.split("=")]),
    )
    try:
        yield RayCluster(process, mark)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()


def main(nodes: int, cpus: int) -> None:
    """Run a cluster until the input ends."""
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as directory:
        common = {"object_store_memory": OBJECT_STORE, "temp_dir": directory}
        cluster = Cluster(
            head_node_args={"num_cpus": 0, "include_dashboard": False, **common}, initialize_head=True
        )
        workers = [cluster.add_node(wait=False, num_cpus=cpus, **common) for _ in range(nodes)]
        cluster.wait_for_nodes()
        try:
            print("cluster:", cluster.address, *(node.node_id for node in workers), flush=True)
            for line in sys.stdin:
                command, *arguments = line.split()
                if command == "add":
                    workers.append(cluster.add_node(num_cpus=cpus, **common))
                    print("cluster:", workers[-1].node_id, flush=True)
                else:
                    [node] = [each for each in workers if each.node_id.startswith(arguments[0])]
                    workers.remove(node)
                    cluster.remove_node(node, allow_graceful=False)
                    print("cluster:", flush=True)
        finally:
            cluster.shutdown()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
