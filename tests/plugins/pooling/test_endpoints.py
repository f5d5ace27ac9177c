"""The endpoints over ASGI, on a backend whose vectors are known."""

from __future__ import annotations

import asyncio
import base64
import struct
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from support.api_fakes import Recorder, app_of, ask, chat, complete, error_of
from support.pooling_fakes import CLASSIFIES, EMBEDS, SCORES, a_pooling_server, fake_of

from fllm import BackendUnavailable, PoolingCard
from fllm.tokenizer import Tokenizer
from fllm_api.api_keys import ApiKeys
from fllm_api.config import RateLimits

MODEL = a_pooling_server()


def post(path: str, server: Any = MODEL, **body: Any) -> httpx.Response:
    return ask(server, "POST", path, json=body)


def embed(given: Any, server: Any = MODEL, **body: Any) -> httpx.Response:
    return post("/v1/embeddings", server, input=given, **body)


def vectors(response: httpx.Response) -> list[list[float]]:
    assert response.status_code == 200, response.text
    return [each["embedding"] for each in response.json()["data"]]


@pytest.mark.parametrize(
    ("given", "lengths"),
    [
        ("abc", [3]),
        (["a", "bcd"], [1, 3]),
        ([5, 6], [2]),
        ([[5, 6], [7]], [2, 1]),
        (["abc"], [3]),
    ],
)
def test_an_input_has_four_forms(given: Any, lengths: list[int]) -> None:
    response = embed(given)
    assert [each[0] for each in vectors(response)] == lengths
    body = response.json()
    assert body["usage"] == {"prompt_tokens": sum(lengths), "total_tokens": sum(lengths)}
    assert (body["object"], body["model"]) == ("list", "org/fake")
    assert [each["index"] for each in body["data"]] == list(range(len(lengths)))
    assert {each["object"] for each in body["data"]} == {"embedding"}


def test_base64_is_float32_in_little_endian_order() -> None:
    [encoded] = vectors(embed([5, 6], encoding_format="base64"))
    assert struct.unpack("<3f", base64.b64decode(str(encoded))) == (2.0, 5.0, 6.0)


def test_a_large_response_is_sent_in_pieces_and_is_complete() -> None:
    server = a_pooling_server(PoolingCard(task="embed", size=64))
    fake_of(server).repeats = 64
    found = vectors(embed([[i % 200, 7] for i in range(2048)], server))
    assert found == [[2.0, i % 200, 7.0] * 64 for i in range(2048)]


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"input": []}, "input", "is empty"),
        ({"input": ["a", [1]]}, "input", "mixes strings and token ids"),
        ({"input": [[]]}, "input[0]", "has no tokens"),
        ({"input": ""}, "input", "has no tokens"),
        ({"input": [1, 99999]}, "input", "token id 99999 does not exist"),
        ({"input": [[1], [-1]]}, "input[1][0]", "Expected `int` >= 0"),
        ({"input": 5}, "input", "Expected `str | array`"),
        ({}, "input", "missing required field"),
        ({"input": ["a"] * 2049}, "input", "has 2049 inputs; the maximum is 2048"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "Invalid enum value"),
        ({"input": "a", "embed_dtype": "float16"}, "embed_dtype", "Invalid enum value"),
        ({"messages": [{"role": "user", "content": "a"}]}, "messages", "Expected `null`"),
        ({"input": "a", "dimensions": 2}, "dimensions", "is not known to be trained for shorter embeddings"),
        ({"input": "a", "dimensions": 0}, "dimensions", "Expected `int` >= 1"),
        ({"input": "a", "prompt_name": "query"}, "prompt_name", "is unknown; the model has none"),
        ({"input": "a", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens", "it must be -1, or 1 to 32"),
        ({"input": "a", "truncate_prompt_tokens": 33}, "truncate_prompt_tokens", "it must be -1, or 1 to 32"),
    ],
)
def test_an_invalid_request_names_its_field(body: dict[str, Any], param: str, message: str) -> None:
    response = post("/v1/embeddings", **body)
    error = error_of(response)
    assert (response.status_code, error["param"]) == (400, param)
    assert message in error["message"]


@pytest.mark.parametrize("given", ["a" * 33, [7] * 33])
def test_an_input_that_is_too_long_names_both_numbers(given: Any) -> None:
    error = error_of(embed(["a", given] if isinstance(given, str) else [[1], given]))
    assert (error["param"], error["code"]) == ("input[1]", "context_length_exceeded")
    assert "maximum context length is 32 tokens, and the input has 33 tokens" in error["message"]


@pytest.mark.parametrize(
    ("limit", "side", "expected"),
    [
        (-1, None, (32, ord("0"))),
        (4, None, (4, ord("0"))),
        (4, "left", (4, None)),
    ],
)
def test_a_long_input_is_truncated_on_request(
    limit: int, side: str | None, expected: tuple[int, int | None]
) -> None:
    text = "0123456789" * 5
    [found] = vectors(embed(text, truncate_prompt_tokens=limit, truncation_side=side))
    tokenizer = MODEL.tokenizer
    ids = tokenizer.encode(text, add_special_tokens=False)
    kept = ids[-expected[0] :] if side == "left" else ids[: expected[0]]
    assert found == [len(kept), kept[0], kept[-1]]


@pytest.mark.parametrize("text", ["ab" * 200_000, "a " * 100_000 + "b"])
def test_a_huge_input_is_refused_or_truncated_without_reading_all(text: str) -> None:
    assert error_of(embed(text))["code"] == "context_length_exceeded"
    assert vectors(embed(text, truncate_prompt_tokens=-1))[0][0] == 32
    assert vectors(embed(text, truncate_prompt_tokens=3, truncation_side="left"))[0][0] == 3


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("query", ["ab" * 200_000, " " * 200_000 + "a", "abcdefgh" * 10, "ab"])
def test_the_query_of_many_pairs_is_tokenized_once_and_not_whole(
    query: str, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = a_pooling_server(SCORES)
    documents = ["c" * n for n in (1, 40, 3, 5)]
    ids = server.tokenizer.encode(query, add_special_tokens=False)
    read: list[int] = []
    encode = type(server.tokenizer).encode_text

    def count(tokenizer: Tokenizer, text: str) -> Any:
        read.append(len(text))
        return encode(tokenizer, text)

    monkeypatch.setattr(type(server.tokenizer), "encode_text", count)
    settings = {"truncate_prompt_tokens": -1, "truncation_side": side}
    response = post("/rerank", server, query=query, documents=documents, **settings)
    assert response.status_code == 200, response.text
    for given, document in zip(fake_of(server).requests[0].inputs, documents, strict=True):
        second = min(len(document), 16 if len(ids) > 16 else 32 - len(ids))
        kept = 32 - second if len(ids) >= len(document) else min(len(ids), 16)
        kept = min(kept, len(ids))
        first = ids[len(ids) - kept :] if side == "left" else ids[:kept]
        assert given.token_ids[:kept] == first
    assert len(read) == 1 + len(documents)
    assert sum(read) < 150_000


def test_embeddings_are_cut_to_what_the_model_is_trained_for() -> None:
    any_size = a_pooling_server(replace(EMBEDS, matryoshka=True))
    assert len(vectors(embed("ab", any_size, dimensions=2))[0]) == 2
    assert "have 3 values" in error_of(embed("ab", any_size, dimensions=4))["message"]
    sizes = a_pooling_server(replace(EMBEDS, matryoshka=(2,)))
    assert len(vectors(embed("ab", sizes, dimensions=2))[0]) == 2
    assert len(vectors(embed("ab", sizes, dimensions=3))[0]) == 3
    assert "trained for are 2" in error_of(embed("ab", sizes, dimensions=1))["message"]


def test_prompts_precede_texts_and_not_token_ids() -> None:
    server = a_pooling_server(
        replace(EMBEDS, prompts={"query": "q: ", "plain": ""}, default_prompt_name="plain")
    )
    assert vectors(embed("abc", server))[0][0] == 3
    assert vectors(embed("abc", server, prompt_name="query"))[0][0] == 6
    assert vectors(embed([1, 2], server, prompt_name="query"))[0][0] == 2
    with_default = a_pooling_server(replace(EMBEDS, prompts={"query": "q: "}, default_prompt_name="query"))
    assert vectors(embed("abc", with_default))[0][0] == 6


def test_settings_reach_the_backend() -> None:
    server = a_pooling_server()
    embed("a", server, use_activation=False, priority=3)
    embed("a", server, normalize=True, user="someone")
    first, second = fake_of(server).requests
    assert (first.activation, first.priority, second.activation) == (False, 3, True)
    assert first.client == "ip:127.0.0.1"


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_rerank_with_embeddings_sorts_by_the_product() -> None:
    body = {"query": "aa", "documents": ["b", {"text": "cccc"}, "dd"]}
    response = post("/v1/rerank", **body)
    assert response.status_code == 200
    found = response.json()
    assert [each["index"] for each in found["results"]] == [2, 1, 0]
    assert [each["document"]["text"] for each in found["results"]] == ["dd", "cccc", "b"]
    assert found["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    assert found["id"].startswith("rerank-")


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_rerank_with_a_cross_encoder(path: str) -> None:
    server = a_pooling_server(SCORES)
    body = {"query": "aa", "documents": ["b", "cccc", "dd"]}
    found = post(path, server, **body, top_n=2, return_documents=False).json()["results"]
    assert found == [{"index": 1, "relevance_score": 6.0}, {"index": 2, "relevance_score": 4.0}]
    everything = post(path, server, **body, top_n=0).json()["results"]
    assert [each["document"] for each in everything] == [{"text": "cccc"}, {"text": "dd"}, {"text": "b"}]
    shorter = post(path, server, **body, max_tokens_per_doc=1).json()["results"]
    assert [each["relevance_score"] for each in shorter] == [3.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": "a", "documents": []}, "documents"),
        ({"query": "a"}, "documents"),
        ({"documents": ["a"]}, "query"),
        ({"query": "a", "documents": ["a"], "top_n": -1}, "top_n"),
        ({"query": "a", "documents": [{"title": "a"}]}, "documents[0].text"),
        ({"query": "a", "documents": ["a"], "rank_fields": ["text"]}, "rank_fields"),
        ({"query": "a", "documents": ["b" * 33]}, "documents"),
        ({"query": "a", "documents": ["b", "b" * 33]}, "documents[1]"),
        ({"query": "a" * 33, "documents": ["b"]}, "query"),
    ],
)
def test_an_invalid_ranking_names_its_field(body: dict[str, Any], param: str) -> None:
    response = post("/rerank", **body)
    assert (response.status_code, error_of(response)["param"]) == (400, param)


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize("names", [("text_1", "text_2"), ("queries", "documents")])
@pytest.mark.parametrize(
    ("first", "second", "scores"),
    [
        ("a", "b", [2.0]),
        ("a", ["b", "cc"], [2.0, 3.0]),
        (["aa", "b"], ["c", "dd"], [3.0, 3.0]),
        (["aa"], ["c", "dd"], [3.0, 4.0]),
    ],
)
def test_one_with_one_or_several_and_several_with_several_are_scored(
    path: str, names: tuple[str, str], first: Any, second: Any, scores: list[float]
) -> None:
    found = post(path, a_pooling_server(SCORES), **dict(zip(names, (first, second), strict=True))).json()
    assert [each["score"] for each in found["data"]] == scores
    assert [each["index"] for each in found["data"]] == list(range(len(scores)))
    assert found["object"] == "list"
    assert found["data"][0]["object"] == "score"


def test_scores_of_embeddings_are_their_products() -> None:
    body = {"text_1": ["a", "bb"], "text_2": ["ccc", "d"]}
    inputs = ["a", "bb", "ccc", "d"]
    a, bb, ccc, d = vectors(embed(inputs))
    found = post("/score", **body).json()["data"]
    assert [each["score"] for each in found] == [cosine(a, ccc), cosine(bb, d)]
    assert post("/score", text_1="a", text_2=["ccc", "d"]).json()["data"][1]["score"] == cosine(a, d)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "text_1"),
        ({"text_1": "a"}, "text_1"),
        ({"text_1": "a", "documents": "b"}, "text_1"),
        ({"text_1": "a", "text_2": "b", "queries": "c", "documents": "d"}, "text_1"),
        ({"text_1": ["a", "b"], "text_2": ["c", "d", "e"]}, "text_1"),
        ({"text_1": ["a", "b"], "text_2": "c"}, "text_1"),
        ({"queries": "a", "documents": []}, "queries"),
        ({"text_1": "a", "text_2": ["b"] * 2049}, "text_2"),
    ],
)
def test_invalid_scores_name_their_field(body: dict[str, Any], param: str) -> None:
    response = post("/score", **body)
    assert (response.status_code, error_of(response)["param"]) == (400, param)


@pytest.mark.parametrize("path", ["/classify", "/v1/classify"])
def test_classes_have_a_label_and_probabilities(path: str) -> None:
    found = post(path, a_pooling_server(CLASSIFIES), input=[[8, 9, 1], [9, 0]]).json()
    assert found["data"] == [
        {"index": 0, "label": "good", "probs": [3.0, 8.0], "num_classes": 2},
        {"index": 1, "label": "good", "probs": [2.0, 9.0], "num_classes": 2},
    ]
    assert found["usage"]["prompt_tokens"] == 5


@pytest.mark.parametrize(
    ("pooling", "path", "body", "message"),
    [
        (EMBEDS, "/classify", {"input": "a"}, "this model makes embeddings: use /v1/embeddings"),
        (SCORES, "/v1/embeddings", {"input": "a"}, "this model makes classes: use /classify"),
        (CLASSIFIES, "/rerank", {"query": "a", "documents": ["b"]}, "has 2 classes"),
        (CLASSIFIES, "/score", {"text_1": "a", "text_2": "b"}, "has 2 classes"),
        (None, "/v1/embeddings", {"input": "a"}, "generates text; start the server with --runner pooling"),
        (None, "/rerank", {"query": "a", "documents": ["b"]}, "generates text"),
        (None, "/score", {"text_1": "a", "text_2": "b"}, "generates text"),
        (None, "/classify", {"input": "a"}, "generates text"),
    ],
)
def test_a_task_that_the_model_does_not_do_is_a_bad_request(
    pooling: Any, path: str, body: dict[str, Any], message: str
) -> None:
    response = post(path, a_pooling_server(pooling), **body)
    error = error_of(response)
    assert (response.status_code, error["param"], error["code"]) == (400, "model", "unsupported_model")
    assert message in error["message"]


def test_a_model_that_pools_does_not_generate() -> None:
    for response in (chat(MODEL), complete(MODEL)):
        error = error_of(response)
        assert (response.status_code, error["code"]) == (400, "unsupported_model")
        assert "does not generate text; use /v1/embeddings" in error["message"]
    about = ask(MODEL, "GET", "/v1/models").json()["data"][0]
    assert (about["max_prompt_len"], about["max_model_len"]) == (32, 32)


def test_only_json_is_accepted() -> None:
    response = ask(MODEL, "POST", "/v1/embeddings", content=b"input=a")
    assert response.status_code == 415
    response = ask(MODEL, "POST", "/rerank", content=b"", headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    response = ask(MODEL, "POST", "/rerank", content=b"{", headers={"Content-Type": "application/json"})
    assert "not valid JSON" in error_of(response)["message"]


def test_a_key_is_required_and_rate_limits_hold() -> None:
    closed = a_pooling_server(config={"keys": ApiKeys(["secret"])})
    assert embed("a", closed).status_code == 401
    known = {"Authorization": "Bearer secret"}
    assert ask(closed, "POST", "/v1/embeddings", json={"input": "a"}, headers=known).status_code == 200
    limited = a_pooling_server(config={"limits": RateLimits(tokens_per_minute=10)})
    first = embed("a" * 9, limited)
    assert first.headers["x-ratelimit-remaining-tokens"] == "1"
    assert embed("a" * 9, limited).status_code == 200
    refused = embed("a", limited)
    assert (refused.status_code, error_of(refused)["code"]) == (429, "rate_limit_exceeded")


def test_a_request_occupies_capacity() -> None:
    server = a_pooling_server(config={"max_queue": 0}, card={"runtime": {"max_num_seqs": 1}})
    fake_of(server).stalls = True

    async def both() -> httpx.Response:
        transport = httpx.ASGITransport(app_of(server))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            first = asyncio.create_task(client.post("/v1/embeddings", json={"input": "a"}))
            while not fake_of(server).requests:
                await asyncio.sleep(0)
            second = await client.post("/v1/embeddings", json={"input": "b"})
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            return second

    busy = asyncio.run(both())
    assert (busy.status_code, error_of(busy)["code"]) == (503, "server_busy")
    assert fake_of(server).cancelled == 1


def test_a_request_that_takes_too_long_is_ended() -> None:
    server = a_pooling_server(config={"request_timeout": 0.05})
    fake_of(server).stalls = True
    assert embed("a", server).status_code == 504
    assert fake_of(server).cancelled == 1


def test_a_draining_server_refuses() -> None:
    server = a_pooling_server()
    server.drain.start()
    assert embed("a", server).status_code == 503


def test_failures_of_the_engine_have_their_status() -> None:
    server = a_pooling_server()
    fake_of(server).failure = BackendUnavailable("the engine is not running")
    assert embed("a", server).status_code == 503
    fake_of(server).failure = RuntimeError("secret")
    response = embed("a", server)
    assert response.status_code == 500
    assert "secret" not in response.text


def test_collectors_receive_tokens_and_the_end() -> None:
    recorder = Recorder()
    server = a_pooling_server(collectors=[recorder])
    embed(["ab", "c"], server)
    [request] = recorder.requests
    assert (request.prompt_tokens, request.generated_tokens, request.finish_reasons) == (3, 0, ("stop",))
    assert recorder.calls == ["on_request_start", "on_first_token", "on_request_end None"]
    assert request.path == "/v1/embeddings"


@pytest.mark.parametrize("path", ["/v1/embeddings", "/rerank", "/v1/score", "/classify"])
def test_the_schema_documents_errors_in_the_envelope(path: str) -> None:
    document = ask(MODEL, "GET", "/schema/openapi.json").json()
    responses = document["paths"][path]["post"]["responses"]
    assert set(responses) == {"200", "400", "401", "404", "413", "415", "429", "500", "503", "504"}
    for status in ("400", "415", "503"):
        schema = responses[status]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/ErrorResponse"}
