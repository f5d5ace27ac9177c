"""What a 404 says about well-known paths."""

from __future__ import annotations

import pytest
from support.api_fakes import a_server, app_of

from fllm_api.unknown_paths import ENDPOINTS, OTHER_APIS, path_hint


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_base_url_without_or_with_two_versions_is_explained(endpoint: str) -> None:
    bare = endpoint.removeprefix("/v1")
    for path in (bare, f"{bare}/", f"/v1{endpoint}", f"/v1/v1{endpoint}"):
        assert path_hint(path).startswith(f"use {endpoint};"), path


def test_a_models_description_keeps_its_id() -> None:
    assert path_hint("/models/org/name").startswith("use /v1/models/org/name;")


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/v1/messages/batches", "use OpenAI's /v1/batches, an endpoint of the plugin batches"),
        ("/v1/messages", "/v1/messages is an endpoint of the plugin messages"),
        ("/v1/messages/count_tokens", "/v1/messages is an endpoint of the plugin messages"),
        ("/v1/v1/responses", "/v1/responses is an endpoint of the plugin responses"),
        ("/responses/resp_1", "/v1/responses is an endpoint of the plugin responses"),
        ("/api/chat", "/api/chat is an endpoint of the plugin ollama"),
        ("/v1/batches", "/v1/batches is an endpoint of the plugin batches"),
        ("/tokenize", "/tokenize is an endpoint of the plugin tokens"),
        ("/systemone", "/v1/systemone is an endpoint of the plugin systemone"),
        ("/embeddings", "/v1/embeddings is an endpoint of the plugin pooling"),
        ("/embed", "use /v1/embeddings, an endpoint of the plugin pooling"),
        ("/v1/audio/transcriptions", "audio is not offered"),
        ("/docs", "the description of this API is at /schema"),
    ],
)
def test_another_api_is_named(path: str, hint: str) -> None:
    assert path_hint(path) == hint


def test_an_unknown_path_of_ollamas_api_gets_those_that_are_offered() -> None:
    hint = path_hint("/api/pull")
    assert hint.startswith("of Ollama's API, the plugin ollama offers /api/chat, /api/generate,")


@pytest.mark.parametrize("path", ["/", "", "/v1", "/v1/"])
def test_the_root_names_the_endpoints(path: str) -> None:
    assert path_hint(path).startswith("the endpoints are /v1/chat/completions,")


@pytest.mark.parametrize("path", ["/favicon.ico", "/v1/chat", "/apiary", "/messagesx", "/v10/models"])
def test_other_paths_have_no_hint(path: str) -> None:
    assert path_hint(path) == ""


def test_no_hint_shadows_another() -> None:
    known = list(OTHER_APIS)
    for i, path in enumerate(known):
        assert not any(path.startswith(f"{earlier}/") for earlier in known[:i]), path


def test_every_endpoint_exists() -> None:
    assert {*ENDPOINTS} <= {route.path for route in app_of(a_server()).routes}
