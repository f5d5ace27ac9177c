"""A class of transformers in a real server: concurrent clients, prefix cache, drafts, structured output."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import torch
from support.model_families import save

from fllm.testing import Server, echo_model, serving

PROMPTS = [[(3 * i * i + seed * i + 7) % 200 + 12 for i in range(10 + 7 * seed)] for seed in range(8)]
SPECULATION = {"method": "ngram", "num_speculative_tokens": 4}
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Any]]:
    """A server of a random gpt-oss, and the model itself."""
    directory: Path = tmp_path_factory.mktemp("gpt-oss")
    model = save("gpt-oss", echo_model(directory), vocab_size=256)
    with serving(
        directory,
        *("--model-impl", "transformers", "--quantization", "none", "--devices", "cpu"),
        *("--backend-option", "threads=1", "--speculative-config", json.dumps(SPECULATION)),
    ) as server:
        yield server, model


def post(server: Server, path: str, **body: Any) -> Any:
    data = json.dumps({"temperature": 0} | body).encode()
    request = Request(server.api + path, data, {"content-type": "application/json"})
    with urlopen(request, timeout=100) as response:
        return json.load(response)


def complete(server: Server, prompt: list[int]) -> Any:
    return post(server, "/completions", prompt=prompt, max_tokens=8, ignore_eos=True, return_token_ids=True)


def test_concurrent_clients_get_the_tokens_of_transformers(served: tuple[Server, Any]) -> None:
    server, model = served
    cached = []
    for _ in range(2):
        with ThreadPoolExecutor(len(PROMPTS)) as clients:
            responses = list(clients.map(lambda prompt: complete(server, prompt), PROMPTS))
        for prompt, response in zip(PROMPTS, responses, strict=True):
            tokens = response["choices"][0]["token_ids"]
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([prompt + tokens])).logits[0]
            assert tokens == logits[len(prompt) - 1 : -1].argmax(-1).tolist()
        cached.append(responses[-1]["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert cached == [0, 48]


def test_structured_output_obeys_its_schema(served: tuple[Server, Any]) -> None:
    response = post(
        served[0],
        "/chat/completions",
        messages=[{"role": "user", "content": "hi"}],
        max_tokens=100,
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
    )
    assert isinstance(json.loads(response["choices"][0]["message"]["content"])["ok"], bool)


def test_the_server_says_what_computes_the_model(served: tuple[Server, Any]) -> None:
    with urlopen(served[0].api + "/models", timeout=100) as response:
        [model] = json.load(response)["data"]
    runtime = model["runtime_config"]
    assert runtime["model_impl"] == "transformers"
    assert runtime["architecture"] == "GptOssForCausalLM"
    assert runtime["enable_prefix_caching"] is True
