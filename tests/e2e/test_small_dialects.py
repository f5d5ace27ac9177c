"""Tokens, Ollama's API and typed decisions, with the embedded model in the real server."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import pytest
from support.http_server import Server

TEXT = "Say hello."
HI = [{"role": "user", "content": TEXT}]


def post(server: Server, path: str, **body: Any) -> Any:
    response = httpx.post(f"{server.url}{path}", json=body, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


def test_tokens_are_those_of_a_chat(server: Server) -> None:
    tokens = post(server, "/tokenize", messages=HI)
    usage = post(server, "/v1/chat/completions", model="m", messages=HI, max_tokens=1)["usage"]
    assert tokens["count"] == usage["prompt_tokens"]
    rendered = post(server, "/apply-template", messages=HI)["prompt"]
    assert post(server, "/detokenize", tokens=tokens["tokens"])["content"] == rendered
    assert post(server, "/tokenize", content=rendered)["tokens"] == tokens["tokens"]


def test_ollamas_chat_has_the_text_of_openais(server: Server) -> None:
    options = {"temperature": 0, "num_predict": 8}
    body = {"model": "m", "messages": HI, "options": options}
    text = httpx.post(f"{server.url}/api/chat", content=json.dumps(body), timeout=60).text
    *lines, last = map(json.loads, text.splitlines())
    expected = post(server, "/v1/chat/completions", model="m", messages=HI, temperature=0, max_tokens=8)
    assert (
        "".join(line["message"]["content"] for line in lines) == expected["choices"][0]["message"]["content"]
    )
    usage = expected["usage"]
    counts = (last["prompt_eval_count"], last["eval_count"], last["done_reason"])
    assert counts == (usage["prompt_tokens"], usage["completion_tokens"], "length")
    [model] = httpx.get(f"{server.url}/api/tags").json()["models"]
    assert (
        post(server, "/api/show", model=model["name"])["model_info"]["LlamaForCausalLM.context_length"]
        == 4096
    )


def test_a_decision_is_read_from_the_models_own_distribution(server: Server) -> None:
    question = {"type": "noul", "instructions": "Is it blue?"}
    found = post(server, "/v1/systemone", state="The sky is blue.", questions={"q": question})
    spellings = ["Yes", "yes", " Yes", " yes", "No", "no", " No", " no"]
    tokens = [
        post(server, "/tokenize", prompt=each, add_special_tokens=False)["tokens"][0] for each in spellings
    ]
    prompt = "The sky is blue.\n\nIs it blue?\nAnswer with Yes or No only."
    chat = post(
        server,
        "/v1/chat/completions",
        model="m",
        messages=[{"role": "user", "content": prompt}],
        max_tokens=1,
        logprobs=True,
        logprob_token_ids=tokens,
    )
    [entry] = chat["choices"][0]["logprobs"]["content"]
    likely = [math.exp(each["logprob"]) for each in entry["top_logprobs"]]
    assert found["answers"]["q"]["noul"] == pytest.approx(sum(likely[:4]) / sum(likely), abs=1e-4)
    assert found["diagnostics"]["q"]["label_mass"] == pytest.approx(sum(likely), abs=1e-4)
