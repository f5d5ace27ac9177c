"""Speculative decoding through the real server: the same output in fewer steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.http_server import Server, serving

SUFFIX = {"method": "suffix", "num_speculative_tokens": 8, "suffix_decoding_max_tree_depth": 16}
USUAL = "Tell me about the sea in three sentences."
SENTENCES = (
    "The lighthouse was built in 1874 by masons from the mainland. Its lamp burned whale oil at first, "
    "later paraffin. The last keeper, Anna Lindqvist, left the tower in 1968."
)
COPYING = f"Repeat the following text word for word, and add nothing:\n\n{SENTENCES}"


@pytest.fixture(scope="module")
def speculating() -> Iterator[Server]:
    """Run a server with speculative decoding."""
    options = ("--enable-metrics", "--max-model-len", "4096")
    with serving(*options, "--speculative-config", json.dumps(SUFFIX)) as running:
        yield running


def ask(server: Server, **options: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": COPYING}], "max_tokens": 48, **options}
    response = httpx.post(f"{server.api}/chat/completions", json=body, timeout=120)
    assert response.status_code == 200, response.text
    parsed: dict[str, Any] = response.json()
    return parsed


def counter(server: Server, name: str) -> float:
    page = httpx.get(f"{server.url}/metrics").text
    [line] = [line for line in page.splitlines() if line.startswith(f"furiosa_llm:{name}_total")]
    return float(line.rpartition(" ")[2])


def is_off(server: Server) -> bool:
    """Return whether drafts lose time, as they may seem to on a machine that is busy with other work."""
    page = httpx.get(f"{server.url}/metrics").text
    [line] = [line for line in page.splitlines() if line.startswith("furiosa_llm:spec_decode_off")]
    return bool(float(line.rpartition(" ")[2]))


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0},
        {"temperature": 0.7, "top_p": 0.9, "seed": 7},
        {"temperature": 0, "frequency_penalty": 0.2, "stop": ["paraffin"]},
    ],
    ids=["greedy", "sampled", "penalized"],
)
def test_the_output_equals_that_without_speculation(
    server: Server, speculating: Server, options: dict[str, Any]
) -> None:
    plain, speculated = ask(server, **options), ask(speculating, **options)
    assert speculated["choices"] == plain["choices"]
    assert speculated["usage"]["completion_tokens"] == plain["usage"]["completion_tokens"]


def test_drafts_of_copied_text_are_accepted(speculating: Server) -> None:
    drafted, accepted = "spec_decode_num_draft_tokens", "spec_decode_num_accepted_tokens"
    before = counter(speculating, drafted), counter(speculating, accepted)
    response = ask(speculating, temperature=0)
    assert response["choices"][0]["message"]["content"].startswith("The lighthouse was built in 1874")
    newly_accepted, newly_drafted = (
        counter(speculating, accepted) - before[1],
        counter(speculating, drafted) - before[0],
    )
    assert newly_accepted <= newly_drafted
    assert newly_accepted > response["usage"]["completion_tokens"] / 2 or is_off(speculating)


def test_an_output_is_drafted_from_an_equal_one_before(speculating: Server) -> None:
    name = "spec_decode_num_accepted_tokens"
    question = [{"role": "user", "content": USUAL}]
    counts, texts = [counter(speculating, name)], []
    for _ in range(2):
        response = ask(speculating, messages=question, temperature=0, max_tokens=40)
        texts.append(response["choices"][0]["message"]["content"])
        counts.append(counter(speculating, name))
    assert texts[0] == texts[1]
    assert counts[2] - counts[1] > counts[1] - counts[0] + 10 or is_off(speculating)
