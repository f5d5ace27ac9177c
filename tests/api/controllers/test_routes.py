"""The routes that generate nothing, and those of plugins."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from litestar import Router, asgi, get, post
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException
from litestar.params import JSONBody
from litestar.types import Receive, Scope, Send
from support.api_fakes import Recorder, a_server, a_server_with, ask, backend_of, chat, error_of

from fllm import LIMITED, Client, RoutesContext, hookimpl
from fllm.errors import BackendUnavailable
from fllm.interfaces import MetricsPage
from fllm.plugins.discovery import Candidate
from fllm.plugins.loader import PluginReport, Plugins
from fllm.serving import Serving
from fllm.values import EngineStats
from fllm_api.api_keys import ApiKeys
from fllm_api.app_state import AppState, ParserChoice


class ExportingCollector(Recorder):
    """A collector that exports metrics."""

    def expose(self, status: EngineStats | None, accept: str) -> MetricsPage:
        running = None if status is None else status.running
        return MetricsPage("text/plain; version=9", f"running {running} for {accept}".encode())


def a_report(**parts: Any) -> PluginReport:
    return PluginReport(**{"name": "p", "distribution": "d", "version": "1.2", "source": "m", **parts})


def get_json(server: AppState, path: str) -> Any:
    response = ask(server, "GET", path)
    assert response.status_code == 200, response.text
    return response.json()


def test_the_model_is_described_beyond_openais_object() -> None:
    server = a_server(card={"artifact_id": "abc", "runtime": {"device": "none", "buckets": [[1, 2]]}})
    model = {
        "id": "org/fake",
        "object": "model",
        "created": 1700000000,
        "owned_by": "furiosa-llm",
        "artifact_id": "abc",
        "max_prompt_len": 511,
        "max_context_len": 512,
        "max_model_len": 512,
        "runtime_config": {"device": "none", "buckets": [[1, 2]]},
    }
    assert get_json(server, "/v1/models") == {"object": "list", "data": [model]}
    assert get_json(server, "/v1/models/org/fake") == model


def test_the_model_is_described_with_its_parsers() -> None:
    choices = {
        "tool_call_parser": ParserChoice("hermes", "auto"),
        "reasoning_parser": ParserChoice(None, "option"),
    }
    [model] = get_json(a_server(parser_choices=choices), "/v1/models")["data"]
    assert model["runtime_config"] == {
        "tool_call_parser": {"name": "hermes", "selected_by": "auto"},
        "reasoning_parser": {"name": None, "selected_by": "option"},
    }


@pytest.mark.parametrize("name", ["plain", "org/name", "/srv/models/a b"])
def test_a_models_id_may_be_a_path(name: str) -> None:
    server = a_server(config={"served_model_name": name})
    assert get_json(server, f"/v1/models/{name}")["id"] == name


def test_every_name_of_the_model_is_listed() -> None:
    server = a_server(config={"served_model_name": "a", "served_model_aliases": ("org/b", "c")})
    assert [model["id"] for model in get_json(server, "/v1/models")["data"]] == ["a", "org/b", "c"]
    assert get_json(server, "/v1/models/org/b")["id"] == "org/b"
    assert ask(server, "GET", "/v1/models/d").json()["error"]["message"] == (
        "the model 'd' does not exist; this server serves 'a' or 'org/b' or 'c'"
    )


def test_another_model_is_not_found() -> None:
    response = ask(a_server(), "GET", "/v1/models/org/other")
    error = error_of(response)
    assert (response.status_code, error["param"], error["code"]) == (404, "model", "model_not_found")
    assert "org/other" in error["message"]


def test_the_version_lists_all_components() -> None:
    plugins = Plugins()
    plugins.reports += [a_report(), a_report(name="q", error="broken"), a_report(name="r", disabled=True)]
    body = get_json(a_server(plugins=plugins, card={"runtime": {"device": "none"}}), "/version")
    assert set(body["furiosa-llm"]) == {"version", "git_hash", "stage"}
    assert body["version"] == body["furiosa-llm"]["version"]
    assert body["backend"] == {"name": "fake", "device": "none"}
    assert body["plugins"] == [
        {"name": "p", "version": "1.2", "distribution": "d", "error": None},
        {"name": "q", "version": "1.2", "distribution": "d", "error": "broken"},
    ]


def test_health_is_the_engines_health() -> None:
    server = a_server()
    response = ask(server, "GET", "/health")
    assert (response.status_code, response.content) == (200, b"")
    backend_of(server).health = BackendUnavailable("the engine died")
    response = ask(server, "GET", "/health")
    error = error_of(response)
    assert (response.status_code, error["type"], error["message"]) == (503, "server_error", "the engine died")


def test_metrics_come_from_the_first_collector_that_exports_any() -> None:
    server = a_server(collectors=[Recorder(), ExportingCollector()], config={"enable_metrics": True})
    response = ask(server, "GET", "/metrics", headers={"accept": "x/y"})
    assert (response.status_code, response.text) == (200, "running 1 for x/y")
    assert response.headers["content-type"] == "text/plain; version=9"
    backend_of(server).health = BackendUnavailable("dead")
    assert ask(server, "GET", "/metrics").text.startswith("running None")


def test_metrics_that_cannot_be_exported_are_a_500_in_the_envelope(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Recorder):
        def expose(self, status: EngineStats | None, accept: str) -> MetricsPage:
            raise ValueError("secret")

    response = ask(a_server(collectors=[Broken()], config={"enable_metrics": True}), "GET", "/metrics")
    error = error_of(response)
    assert (response.status_code, error["type"]) == (500, "server_error")
    assert "secret" not in error["message"]
    assert "secret" in caplog.text


def test_metrics_are_off_by_default() -> None:
    assert ask(a_server(collectors=[ExportingCollector()]), "GET", "/metrics").status_code == 404


def test_metrics_without_an_exporting_collector_are_404() -> None:
    response = ask(a_server(config={"enable_metrics": True}), "GET", "/metrics")
    assert response.status_code == 404
    assert "plugin" in error_of(response)["message"]


def test_plugins_add_routes() -> None:
    @post("/extra", status_code=200)
    async def extra(data: JSONBody[dict[str, int]], server: NamedDependency[Serving]) -> dict[str, int]:
        return {**data, "context": server.card.max_model_len}

    response = ask(a_server_with(extra), "POST", "/extra", json={"a": 1})
    assert (response.status_code, response.json()) == (200, {"a": 1, "context": 512})


@pytest.mark.parametrize(("keys", "owner"), [((), ""), (("secret",), "key:")])
def test_a_plugins_route_learns_who_its_client_is(keys: tuple[str, ...], owner: str) -> None:
    @get("/me", opt=LIMITED)
    async def me(client: NamedDependency[Client]) -> Client:
        return client

    plugins = a_server_with(me).plugins
    server = a_server(plugins=plugins, config={"keys": ApiKeys(keys)})
    found = ask(server, "GET", "/me", headers={"x-api-key": "secret"}).json()
    assert found["name"].startswith(owner or "ip:")
    assert found["owner"][:4] == owner


async def plain() -> None:
    """Not a handler."""


async def unannotated(x):  # type: ignore[no-untyped-def]
    """A handler that Litestar rejects when it builds the application."""


@asgi("/v1/models", is_mount=True)
async def mount(scope: Scope, receive: Receive, send: Send) -> None:
    """A handler that would receive all requests below a path of the server itself."""


@pytest.mark.parametrize(
    ("route", "why"),
    [
        (plain, "Unsupported value"),
        ("/extra", "Unsupported value"),
        (None, "Unsupported value"),
        (get("/health")(plain), "the server itself uses the path /health;"),
        (post("/health")(plain), "the server itself uses the path /health;"),
        (
            Router("/v1", route_handlers=[get("/models")(plain)]),
            "the server itself uses the path /v1/models;",
        ),
        (
            get("/v1/models/{name:str}")(plain),
            "the server itself uses the path /v1/models/{name:str};",
        ),
        (mount, "the server itself uses the path /v1/models;"),
        (get("/schema")(plain), "the server itself uses the path /schema;"),
        (get("/other")(unannotated), "type annotat"),
        (get("/last")(plain), "Handler already registered for path '/last'"),
    ],
)
def test_only_routes_that_cannot_be_mounted_are_left_out(
    route: object, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    @get("/extra")
    async def extra() -> str:
        return "extra"

    @get("/last")
    async def last() -> str:
        return "last"

    server = a_server_with(extra, route, last)
    assert [ask(server, "GET", path).text for path in ("/extra", "/last", "/health")] == ["extra", "last", ""]
    [record] = caplog.records
    assert record.getMessage().startswith("fllm_routes of plugin d:p1:m failed: ")
    assert why in record.getMessage()
    errors = [plugin["error"] for plugin in get_json(server, "/version")["plugins"]]
    assert errors[::2] == [None, None]
    assert why in errors[1]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (403, "permission_error"),
        (429, "rate_limit_error"),
        (499, "invalid_request_error"),
        (503, "server_error"),
    ],
)
def test_an_error_of_a_plugins_route_is_in_the_envelope(status: int, kind: str) -> None:
    @get("/extra")
    async def extra() -> None:
        raise HTTPException("no", status_code=status)

    response = ask(a_server_with(extra), "GET", "/extra")
    error = error_of(response)
    assert (response.status_code, error["type"], error["message"]) == (status, kind, "no")


def test_the_schema_has_the_types_with_their_bounds() -> None:
    page = get_json(a_server(), "/schema/openapi.json")
    assert page["info"]["title"] == "furiosa-llm"
    operation = page["paths"]["/v1/chat/completions"]["post"]
    [body] = operation["requestBody"]["content"].values()
    assert body["schema"]["$ref"].endswith("/ChatRequest")
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    for status in ("400", "401", "404", "413", "415", "429", "500", "503", "504"):
        content = operation["responses"][status]["content"]["application/json"]
        assert content["schema"]["$ref"].endswith("/ErrorResponse")
    properties = page["components"]["schemas"]["ChatRequest"]["properties"]
    assert properties["temperature"]["anyOf"][0] == {"type": "number", "minimum": 0, "maximum": 100}
    assert properties["top_p"]["anyOf"][0] == {"type": "number", "exclusiveMinimum": 0, "maximum": 1}


def test_every_reference_of_the_schema_resolves() -> None:
    page = get_json(a_server(), "/schema/openapi.json")

    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            found = {value["$ref"]} if "$ref" in value else set()
            return found.union(*map(references, value.values()))
        return set().union(*map(references, value)) if isinstance(value, list) else set()

    names = {f"#/components/schemas/{name}" for name in page["components"]["schemas"]}
    assert references(page)
    assert references(page) <= names


def test_the_schema_page_exists() -> None:
    response = ask(a_server(), "GET", "/schema")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(("path", "observes"), [("/mine", True), ("/health", False)])
def test_a_plugin_with_routes_observes_requests_unless_it_is_left_out(path: str, observes: bool) -> None:
    recorder, module = Recorder(), ModuleType("observer")

    def routes(context: RoutesContext) -> list[Any]:
        context.collect(recorder)
        return [get(path)(plain)]

    module.fllm_routes = hookimpl(routes, specname="fllm_routes")  # type: ignore[attr-defined]
    plugins = Plugins()
    plugins.load(Candidate("observer", "d", "1", "m", lambda: module))
    chat(a_server(plugins=plugins))
    assert recorder.calls[:1] == (["on_request_start"] if observes else [])
    assert len(recorder.requests) == observes
