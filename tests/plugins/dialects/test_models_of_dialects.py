"""Tokens, Ollama's API and decisions with several models, and with LoRA adapters."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from support.api_fakes import ask, backend_of
from support.dialect_servers import a_dialect_server, dialect_plugins
from support.served_models import two_models

from fllm.config import LoraAdapter
from fllm_api.adapters import AdapterRegistry

QUESTION = {"state": "x", "questions": {"q": {"type": "noul", "instructions": "x"}}}
ADAPTER = LoraAdapter(id=1, name="sql", path="/adapters/sql")


def test_the_model_of_the_body_is_loaded_and_only_that_one() -> None:
    server = two_models(plugins=dialect_plugins("ollama", "tokens", "systemone"))

    async def work(client: httpx.AsyncClient) -> None:
        async def post(path: str, **body: Any) -> Any:
            return (await client.post(path, json=body)).json()

        async def loaded() -> list[str]:
            return [model["name"] for model in (await client.get("/api/ps")).json()["models"]]

        tags = (await client.get("/api/tags")).json()["models"]
        assert [model["name"] for model in tags] == ["a", "b"]
        assert (await post("/api/show", model="b"))["capabilities"] == ["completion", "tools"]
        assert await loaded() == []
        found = await post("/api/generate", model="b", prompt="Hi", stream=False)
        assert (found["model"], found["response"]) == ("b", "from b")
        found = await post("/api/generate", model="b:latest", prompt="Hi", stream=False)
        assert (found["model"], found["response"]) == ("b", "from b")
        assert await loaded() == ["b"]
        assert (await post("/tokenize", model="b", prompt="Hi"))["count"] == 2
        assert (await post("/v1/systemone", model="b", **QUESTION))["model"] == "b"
        assert await loaded() == ["b"]
        assert set(await post("/api/chat", model="c", messages=[])) == {"error"}
        assert (await post("/api/chat", model="a"))["done_reason"] == "load"
        assert await loaded() == ["a", "b"]

    async def go() -> None:
        async with server.client() as client:
            await work(client)

    asyncio.run(go())


def test_an_adapter_is_a_model() -> None:
    plain = a_dialect_server("ollama", "systemone")
    registry = AdapterRegistry(plain.backend, (ADAPTER,), model="/models/fake", model_names=("org/fake",))
    server = a_dialect_server("ollama", "systemone", backend=plain.backend, adapters=registry)
    body = {"model": "sql", "prompt": "Hi", "stream": False}
    assert ask(server, "POST", "/api/generate", json=body).json()["model"] == "sql"
    assert ask(server, "POST", "/v1/systemone", json={"model": "sql", **QUESTION}).json()["model"] == "sql"
    tagged = {**body, "model": "sql:latest"}
    assert ask(server, "POST", "/api/generate", json=tagged).json()["model"] == "sql"
    assert [each.adapter for each in backend_of(server).prompts] == [1, 1, 1]
    models = ask(server, "GET", "/api/tags").json()["models"]
    assert [(each["name"], each["details"]["parent_model"]) for each in models] == [
        ("org/fake", ""),
        ("sql", "org/fake"),
    ]
