"""The admin routes of replicas drain them and take them back, and need a key of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx
import pytest
from support.api_fakes import FakeBackend, a_server
from support.served_models import SeveralModels

from fllm.errors import RequestError
from fllm.values import EngineStats, ReplicaStats
from fllm_api.api_keys import ApiKeys

ADMIN = {"Authorization": "Bearer root"}


class Replicas(FakeBackend):
    """A backend with replicas that only remember whether they are drained."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.states = dict.fromkeys(names, "ready")

    def list_replicas(self) -> Sequence[ReplicaStats]:
        return [self._report(name) for name in self.states]

    def drain_replica(self, name: str) -> ReplicaStats:
        return self._set(name, "draining")

    def resume_replica(self, name: str) -> ReplicaStats:
        return self._set(name, "ready")

    def _set(self, name: str, state: str) -> ReplicaStats:
        if name not in self.states:
            raise RequestError(f"there is no replica {name!r}", param="name")
        self.states[name] = state
        return self._report(name)

    def _report(self, name: str) -> ReplicaStats:
        return ReplicaStats(name=name, state=self.states[name], stats=EngineStats(), requests=3, restarts=1)


def a_managed_server(**backends: FakeBackend) -> SeveralModels:
    keys = {"admin_keys": ApiKeys(["root"], "--admin-key"), "keys": ApiKeys(["user"])}
    servers = {name: a_server(["from"], backend=backend) for name, backend in backends.items()}
    return SeveralModels(servers, config=keys)


def responses(server: SeveralModels, *requests: tuple[str, str], **headers: str) -> list[httpx.Response]:
    async def run() -> list[httpx.Response]:
        async with server.client() as client:
            for name in server.loaders:
                await client.post(f"/admin/models/{name}/load", headers=ADMIN)
            return [await client.request(*each, headers=headers or ADMIN) for each in requests]

    return asyncio.run(run())


def test_a_replica_is_drained_and_resumed() -> None:
    server = a_managed_server(a=FakeBackend(), b=Replicas("replica-0", "replica-1"))
    drained, listed, resumed = responses(
        server,
        ("POST", "/admin/replicas/replica-1/drain"),
        ("GET", "/admin/replicas"),
        ("POST", "/admin/replicas/replica-1/resume"),
    )
    assert drained.json() == {
        **{"id": "replica-1", "object": "replica", "model": "b", "state": "draining"},
        **{"requests": 3, "queued_tokens": 0, "total_requests": 0, "restarts": 1},
    }
    assert [each["state"] for each in listed.json()["data"]] == ["ready", "draining"]
    assert resumed.json()["state"] == "ready"


def test_replicas_of_several_models_are_told_apart_by_the_model() -> None:
    server = a_managed_server(a=Replicas("replica-0"), b=Replicas("replica-0"))
    path = "/admin/replicas/replica-0/drain"
    ambiguous, named, unknown = responses(
        server, ("POST", path), ("POST", f"{path}?model=b"), ("POST", f"{path}?model=c")
    )
    assert (ambiguous.status_code, ambiguous.json()["error"]["param"]) == (400, "model")
    assert "one of a, b" in ambiguous.json()["error"]["message"]
    assert named.json()["model"] == "b"
    assert unknown.status_code == 404


def test_what_does_not_exist_is_a_clear_error() -> None:
    for backend in (Replicas("r"), FakeBackend()):
        [unknown] = responses(a_managed_server(a=backend), ("POST", "/admin/replicas/q/drain"))
        assert unknown.status_code == 404
        assert "there is no replica 'q'" in unknown.json()["error"]["message"]


@pytest.mark.parametrize("headers", [{"Authorization": "Bearer user"}, {"X-Other": "1"}])
def test_no_other_key_opens_the_routes(headers: dict[str, str]) -> None:
    server = a_managed_server(a=Replicas("r"))
    for response in responses(
        server, ("GET", "/admin/replicas"), ("POST", "/admin/replicas/r/drain"), **headers
    ):
        assert response.status_code == 401
