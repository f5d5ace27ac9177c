"""The admin routes load, unload and pin models, and need a key of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest
from support.api_fakes import a_server, ask
from support.served_models import SeveralModels

from fllm_api.api_keys import ApiKeys

ADMIN = {"Authorization": "Bearer root"}
USER = {"Authorization": "Bearer user"}


def a_managed_server(budget: int | None = None) -> SeveralModels:
    keys = {"admin_keys": ApiKeys(["root"], "--admin-key"), "keys": ApiKeys(["user"])}
    return SeveralModels(
        {"a": a_server(["from", " a"]), "org/b": a_server(["from", " b"])}, budget=budget, config=keys
    )


def run(server: SeveralModels, work: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def go() -> None:
        async with server.client() as client:
            await work(client)

    asyncio.run(go())


def test_models_are_loaded_and_unloaded() -> None:
    async def work(client: httpx.AsyncClient) -> None:
        loaded = await client.post("/admin/models/org/b/load", headers=ADMIN)
        assert loaded.status_code == 200, loaded.text
        assert loaded.json() == {
            **{"id": "org/b", "object": "model", "state": "loaded", "pinned": False, "memory": 1},
            **{"expected_memory": 1, "in_flight": 0, "waiting": 0, "loads": 1, "error": None},
        }
        listed = (await client.get("/admin/models", headers=ADMIN)).json()
        assert [each["state"] for each in listed["data"]] == ["unloaded", "loaded"]
        assert (listed["memory_budget"], listed["memory"]) == (None, 1)
        unloaded = (await client.post("/admin/models/org/b/unload", headers=ADMIN)).json()
        assert (unloaded["state"], unloaded["memory"]) == ("unloaded", 0)
        again = (await client.post("/admin/models/org/b/unload", headers=ADMIN)).json()
        assert again == unloaded

    run(a_managed_server(), work)


def test_a_pinned_model_stays() -> None:
    async def work(client: httpx.AsyncClient) -> None:
        await client.post("/admin/models/a/load", headers=ADMIN)
        response = await client.post("/admin/models/a/pin", headers=ADMIN)
        assert response.status_code == 400
        assert "'a' take 0 MiB of the memory budget" in response.json()["error"]["message"]

    run(a_managed_server(budget=1), work)

    async def roomy(client: httpx.AsyncClient) -> None:
        assert (await client.post("/admin/models/a/pin", headers=ADMIN)).json()["pinned"] is True
        assert (await client.post("/admin/models/a/unpin", headers=ADMIN)).json()["pinned"] is False

    run(a_managed_server(budget=2), roomy)


def test_a_failed_load_shows_the_reason_to_the_administrator() -> None:
    server = a_managed_server()
    server.loaders["a"].fails = True

    async def work(client: httpx.AsyncClient) -> None:
        for _ in range(2):
            response = await client.post("/admin/models/a/load", headers=ADMIN)
            assert response.status_code == 503
        [a, _] = (await client.get("/admin/models", headers=ADMIN)).json()["data"]
        assert (a["state"], a["error"]) == ("failed", "no such file")
        server.loaders["a"].fails = False
        assert (await client.post("/admin/models/a/load", headers=ADMIN)).status_code == 200

    run(server, work)


def test_an_unknown_model_or_action_is_404() -> None:
    async def work(client: httpx.AsyncClient) -> None:
        response = await client.post("/admin/models/c/load", headers=ADMIN)
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "model_not_found"
        assert (await client.post("/admin/models/a/explode", headers=ADMIN)).status_code == 404

    run(a_managed_server(), work)


@pytest.mark.parametrize("path", ["/admin/models/a/load", "/admin/models/org/b/pin"])
def test_the_keys_do_not_open_each_others_routes(path: str) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        for headers in ({}, USER):
            response = await client.post(path, headers=headers)
            assert response.status_code == 401
            assert response.json()["error"]["message"].startswith("a valid admin key is needed")
            assert (await client.get("/admin/models", headers=headers)).status_code == 401
        assert (await client.get("/v1/models", headers=ADMIN)).status_code == 401
        assert (await client.get("/v1/models", headers=USER)).status_code == 200

    run(a_managed_server(), work)


def test_without_an_admin_key_there_are_no_admin_routes() -> None:
    assert ask(a_server(), "GET", "/admin/models").status_code == 404
    assert ask(a_server(), "POST", "/admin/models/a/load").status_code == 404
