"""N-gram speculation through the real server: the same answers, in fewer steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.http_server import Server, serving

NGRAM = {"method": "ngram", "num_speculative_tokens": 5, "prompt_lookup_max": 4, "prompt_lookup_min": 2}
SENTENCES = (
    "The lighthouse was built in 1874 by masons from the mainland. Its lamp burned whale oil at first, "
    "later paraffin. The last keeper, Anna Lindqvist, left the tower in 1968."
)
COPYING = f"Repeat the following text word for word, and add nothing:\n\n{SENTENCES}"


@pytest.fixture(scope="module")
def guessing() -> Iterator[Server]:
    """A server that guesses."""
    options = ("--enable-metrics", "--max-model-len", "4096")
    with serving(*options, "--speculative-config", json.dumps(NGRAM)) as running:
        yield running


def ask(server: Server, **options: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": COPYING}], "max_tokens": 48, **options}
    answer = httpx.post(f"{server.api}/chat/completions", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    parsed: dict[str, Any] = answer.json()
    return parsed


def counted(server: Server, name: str) -> float:
    page = httpx.get(f"{server.url}/metrics").text
    [line] = [line for line in page.splitlines() if line.startswith(f"furiosa_llm:{name}_total")]
    return float(line.rpartition(" ")[2])


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0},
        {"temperature": 0.7, "top_p": 0.9, "seed": 7},
        {"temperature": 0, "frequency_penalty": 0.2, "stop": ["paraffin"]},
    ],
    ids=["greedy", "sampled", "penalized"],
)
def test_answers_are_those_of_a_server_that_does_not_guess(
    server: Server, guessing: Server, options: dict[str, Any]
) -> None:
    plain, guessed = ask(server, **options), ask(guessing, **options)
    assert guessed["choices"] == plain["choices"]
    assert guessed["usage"]["completion_tokens"] == plain["usage"]["completion_tokens"]


def test_copied_text_is_guessed_right(guessing: Server) -> None:
    drafted, accepted = "spec_decode_num_draft_tokens", "spec_decode_num_accepted_tokens"
    before = counted(guessing, drafted), counted(guessing, accepted)
    answer = ask(guessing, temperature=0)
    assert answer["choices"][0]["message"]["content"].startswith("The lighthouse was built in 1874")
    right, guesses = counted(guessing, accepted) - before[1], counted(guessing, drafted) - before[0]
    assert answer["usage"]["completion_tokens"] / 2 < right <= guesses
