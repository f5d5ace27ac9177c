"""LoRA adapters over HTTP: chosen by model, listed, loaded and unloaded."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.api_fakes import FakeBackend, a_server, ask, backend_of, chat, complete, events
from support.served_models import SeveralModels

from fllm.config import LoraAdapter
from fllm.errors import BackendUnavailable, ConfigError, ModelError, ModelNotFound
from fllm_api.adapters import AdapterRegistry
from fllm_api.app_state import AppState


class AdapterBackend(FakeBackend):
    """A fake backend that records which adapters it is told to load and unload."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int, str]] = []
        self.error: Exception | None = None

    async def load_adapter(self, adapter: LoraAdapter) -> None:
        self.calls.append(("load", adapter.id, adapter.path))
        if self.error:
            raise self.error

    async def unload_adapter(self, adapter_id: int) -> None:
        self.calls.append(("unload", adapter_id, ""))
        if self.error:
            raise self.error


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "allowed" / "new").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "allowed" / "link").symlink_to(tmp_path / "secret")
    return tmp_path


@pytest.fixture
def server(root: Path) -> AppState:
    plain, backend = a_server(), AdapterBackend()
    backend.steps, backend.eos = backend_of(plain).steps, backend_of(plain).eos
    loaded = (
        LoraAdapter(id=1, name="sql", path="/adapters/sql"),
        LoraAdapter(id=2, name="law", path="/adapters/law", base_model_name="org/base"),
    )
    names = ("org/fake", "alias")
    registry = AdapterRegistry(
        backend, loaded, model="/models/fake", model_names=names, directories=[root / "allowed"]
    )
    config = {"enable_runtime_lora_loading": True, "served_model_aliases": ("alias",)}
    return a_server(backend=backend, adapters=registry, config=config)


def backend(server: AppState) -> AdapterBackend:
    assert isinstance(server.backend, AdapterBackend)
    return server.backend


def load(server: AppState, name: str, path: Path | str, **fields: Any) -> httpx.Response:
    body = {"lora_name": name, "lora_path": str(path), **fields}
    return ask(server, "POST", "/v1/load_lora_adapter", json=body)


def unload(server: AppState, name: str) -> httpx.Response:
    return ask(server, "POST", "/v1/unload_lora_adapter", json={"lora_name": name})


def error(response: httpx.Response) -> tuple[int, str | None, str | None]:
    envelope = response.json()["error"]
    return response.status_code, envelope["param"], envelope["code"]


@pytest.mark.parametrize(
    ("model", "adapter", "name"),
    [
        ("sql", 1, "sql"),
        ("law", 2, "law"),
        ("org/fake", 0, "org/fake"),
        ("alias", 0, "org/fake"),
        ("gpt-4", 0, "org/fake"),  # any other name is the model itself
    ],
)
def test_the_model_of_a_request_chooses_the_adapter(
    server: AppState, model: str, adapter: int, name: str
) -> None:
    assert chat(server, model=model).json()["model"] == name
    assert complete(server, model=model, prompt=["a", "b"]).json()["model"] == name
    assert {chunk["model"] for chunk in events(chat(server, model=model, stream=True))} == {name}
    assert [each.adapter for each in backend(server).prompts] == [adapter] * 4


def test_beam_search_and_best_of_use_the_adapter(server: AppState) -> None:
    complete(server, model="law", best_of=2, max_tokens=2)
    complete(server, model="sql", use_beam_search=True, best_of=2, max_tokens=2, temperature=0)
    adapters = [each.adapter for each in backend(server).prompts]
    assert adapters[:2] == [2, 2]
    assert set(adapters[2:]) == {1}


def test_models_lists_the_adapters_with_their_root_and_parent(server: AppState) -> None:
    models = ask(server, "GET", "/v1/models").json()["data"]
    assert [(each["id"], each["root"], each["parent"]) for each in models] == [
        ("org/fake", "/models/fake", None),
        ("alias", "/models/fake", None),
        ("sql", "/adapters/sql", "org/fake"),
        ("law", "/adapters/law", "org/base"),
    ]
    assert ask(server, "GET", "/v1/models/sql").json() == models[2]
    assert error(ask(server, "GET", "/v1/models/none")) == (404, "model", "model_not_found")


def test_models_without_lora_have_neither_root_nor_parent() -> None:
    [model] = ask(a_server(), "GET", "/v1/models").json()["data"]
    assert not {"root", "parent"} & set(model)


def test_an_adapter_is_loaded_used_and_unloaded(server: AppState, root: Path) -> None:
    response = load(server, "new", root / "allowed" / "new")
    assert response.status_code == 200
    assert response.text == "Success: LoRA adapter 'new' added successfully."
    assert backend(server).calls == [("load", 3, str(root / "allowed" / "new"))]
    assert complete(server, model="new").json()["model"] == "new"
    assert backend(server).prompts[-1].adapter == 3
    response = unload(server, "new")
    assert (response.status_code, response.text) == (
        200,
        "Success: LoRA adapter 'new' removed successfully.",
    )
    assert backend(server).calls[-1] == ("unload", 3, "")
    assert error(complete(server, model="new")) == (404, "model", "model_not_found")
    assert error(chat(server, model="new", stream=True)) == (404, "model", "model_not_found")
    assert [each["id"] for each in ask(server, "GET", "/v1/models").json()["data"]][2:] == ["sql", "law"]
    assert load(server, "new", root / "allowed" / "new").status_code == 200
    assert complete(server, model="new").json()["model"] == "new"
    assert backend(server).prompts[-1].adapter == 4  # a new id: nothing cached is reused


def test_a_loaded_adapter_is_replaced_only_in_place(server: AppState, root: Path) -> None:
    assert error(load(server, "sql", root / "allowed" / "new")) == (400, "lora_name", None)
    assert backend(server).calls == []
    assert load(server, "sql", root / "allowed" / "new", load_inplace=True).status_code == 200
    assert [call[:2] for call in backend(server).calls] == [("load", 3), ("unload", 1)]
    complete(server, model="sql")
    assert backend(server).prompts[-1].adapter == 3


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        ("x", "secret", (400, "lora_path", None)),
        ("x", "allowed/../secret", (400, "lora_path", None)),
        ("x", "allowed/link", (400, "lora_path", None)),
        ("x", "/etc", (400, "lora_path", None)),
        ("x", "\0", (400, "lora_path", None)),
        ("x", "", (400, "lora_path", None)),
        ("x", "allowed/none", (404, "lora_path", "model_not_found")),
        ("org/fake", "allowed/new", (400, "lora_name", None)),
        ("alias", "allowed/new", (400, "lora_name", None)),
        ("", "allowed/new", (400, "lora_name", None)),
        ("a\nb", "allowed/new", (400, "lora_name", None)),
        ("x" * 300, "allowed/new", (400, "lora_name", None)),
    ],
)
def test_names_and_paths_that_are_not_allowed(
    server: AppState, root: Path, name: str, path: str, expected: tuple[int, str, str | None]
) -> None:
    assert error(load(server, name, root / path if path else "")) == expected
    assert backend(server).calls == []
    assert complete(server, model="sql").status_code == 200


def test_bodies_that_lack_a_field(server: AppState) -> None:
    for path, field in (("load", "lora_path"), ("unload", "lora_name")):
        response = ask(server, "POST", f"/v1/{path}_lora_adapter", json={"lora_name": 5})
        assert error(response)[:2] == (400, "lora_name")
        names = {"lora_name": "x"} if path == "load" else {}
        response = ask(server, "POST", f"/v1/{path}_lora_adapter", json=names)
        assert error(response)[:2] == (400, field)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (ModelError("the file is damaged"), (400, "lora_path", None)),
        (ConfigError("too many adapters"), (400, "lora_path", None)),
        (BackendUnavailable("the engine process died"), (503, None, "unavailable")),
    ],
)
def test_an_adapter_that_the_engine_rejects_is_not_listed(
    server: AppState, root: Path, failure: Exception, expected: tuple[int, str | None, str | None]
) -> None:
    backend(server).error = failure
    assert error(load(server, "new", root / "allowed" / "new")) == expected
    assert len(ask(server, "GET", "/v1/models").json()["data"]) == 4
    assert error(load(server, "sql", root / "allowed" / "new", load_inplace=True)) == expected
    complete(server, model="sql")
    assert backend(server).prompts[-1].adapter == 1


def test_unloading_what_is_not_loaded(server: AppState) -> None:
    assert error(unload(server, "none")) == (404, "lora_name", "model_not_found")
    backend(server).error = BackendUnavailable("the engine is being started")
    assert error(unload(server, "sql")) == (503, None, "unavailable")
    assert complete(server, model="sql").status_code == 200
    backend(server).error = ModelNotFound("the engine could not load it again")
    assert unload(server, "sql").status_code == 200


def test_the_routes_exist_only_with_the_flag(root: Path) -> None:
    response = load(a_server(), "x", root / "allowed" / "new")
    assert response.status_code == 404
    assert "--enable-runtime-lora-loading" in response.json()["error"]["message"]


def test_each_of_several_models_has_its_own_adapters(root: Path) -> None:
    states = {}
    for name in "ab":
        plain, backend = a_server(["from", f" {name}"]), AdapterBackend()
        backend.steps, backend.eos = backend_of(plain).steps, backend_of(plain).eos
        registry = AdapterRegistry(model=f"/{name}", model_names=(name,), directories=[root / "allowed"])
        words = ["from", f" {name}"]
        states[name] = a_server(words, backend=backend, adapters=registry)
    several = SeveralModels(states, config={"enable_runtime_lora_loading": True})
    path = str(root / "allowed" / "new")

    async def go() -> None:
        async with several.client() as client:

            async def post(action: str, **body: str) -> httpx.Response:
                return await client.post(f"/v1/{action}_lora_adapter", json=body)

            loaded = await post("load", lora_name="sql", lora_path=path, model="b")
            assert loaded.status_code == 200, loaded.text
            for taken in ("sql", "b"):
                refused = await post("load", lora_name=taken, lora_path=path, model="a")
                assert refused.json()["error"]["message"] == f"{taken!r} is a name of another model"
            completed = await client.post("/v1/completions", json={"model": "sql", "prompt": "Hi"})
            assert completed.json()["choices"][0]["text"] == "from b"
            await several.pool.unload(several.pool.models[1])
            assert (await post("unload", lora_name="sql")).status_code == 200, "also while it is not loaded"
            gone = await client.post("/v1/completions", json={"model": "sql", "prompt": "Hi"})
            assert gone.status_code == 404
            assert (await post("unload", lora_name="other")).status_code == 404

    asyncio.run(go())
