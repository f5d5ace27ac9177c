"""Clients that guess what others have sent: the prefix cache does not tell them whether they are right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from support.fault_table import Seen, fault
from support.http_server import Server, serving

VICTIM, ATTACKER = "key-of-the-victim", "key-of-the-attacker"
SECRET = "The account of Ada Lovelace is 4711, and its password is swordfish. " * 4
PUBLIC = "You are the librarian of a small town. Name the shelf of each book, and invent no title. " * 4
WRONG = f"? {SECRET}"
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
BLOCK = 16
"""Tokens in a block of the embedded model's cache."""

KEYS = ("--api-key", VICTIM, "--api-key", ATTACKER)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(*KEYS) as running:
        yield running


def usage(server: Server, key: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send a request, whole or streamed, and return its usage."""
    response = httpx.post(
        f"{server.api}{path}",
        json={"model": "m", "max_tokens": 1, **body},
        headers={"Authorization": f"Bearer {key}"},
        timeout=120,
    )
    assert response.status_code == 200, response.text
    if "stream" not in body:
        return dict(response.json()["usage"])
    chunks = [
        line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: {")
    ]
    return dict(msgspec.json.decode(chunks[-1])["usage"])


def cached(server: Server, key: str, path: str, body: dict[str, Any]) -> int:
    """Send a request and return how many tokens of its prompt were in the cache."""
    tokens: int = usage(server, key, path, body)["prompt_tokens_details"]["cached_tokens"]
    return tokens


FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "a completion": ("/completions", {}),
    "a streamed completion": ("/completions", STREAM),
    "n": ("/completions", {"n": 2}),
    "beam search": ("/completions", {"use_beam_search": True, "best_of": 2}),
    "a chat": ("/chat/completions", {}),
    "a streamed chat": ("/chat/completions", STREAM),
}


def request(form: str, text: str, **options: Any) -> tuple[str, dict[str, Any]]:
    """Return path and body of a request whose prompt begins with the text."""
    path, body = FORMS[form]
    if path == "/completions":
        return path, {"prompt": text, **body, **options}
    # As a system message, because the template would write its own one first.
    return path, {"messages": [{"role": "system", "content": text}], **body, **options}


@fault(
    "Clients",
    "A key guesses the prompt of another key, and reads in `cached_tokens` whether it was right",
    must="A right guess looks like a wrong one; the other key still finds its own prompt in the cache",
)
def test_guessing_the_prompt_of_another_key(server: Server, seen: Seen) -> None:
    for form in FORMS:
        text = f"{form}: {SECRET}"
        assert cached(server, VICTIM, *request(form, text)) == 0, form
        assert cached(server, ATTACKER, *request(form, text)) == 0, form
        own = cached(server, VICTIM, *request(form, text))
        assert own >= 4 * BLOCK, form
    seen(f"right guesses in {len(FORMS)} kinds of requests: 0 tokens cached; its own prompt: {own}")


@fault(
    "Clients",
    "Users of one key guess each other's prompts; the gateway in front sends a `cache_salt` for each user",
    must="A right guess with another salt looks like a wrong one; the same salt finds the prompt",
)
def test_guessing_a_prompt_with_another_salt(server: Server, seen: Seen) -> None:
    for form in FORMS:
        text = f"salted, {form}: {SECRET}"
        ann = request(form, text, cache_salt="ann")
        assert cached(server, VICTIM, *ann) == 0, form
        assert cached(server, VICTIM, *request(form, text, cache_salt="bob")) == 0, form
        assert cached(server, VICTIM, *request(form, text)) == 0, form
        assert cached(server, ATTACKER, *ann) == 0, form
        own = cached(server, VICTIM, *ann)
        assert own >= 4 * BLOCK, form
    seen(f"another salt, none, or the same one of another key: 0 tokens cached; the same: {own}")


@fault(
    "Clients",
    "The operator shares a system prompt between keys (`--shared-prefix`); a key guesses what follows it",
    must="Exactly the blocks inside the shared text are shared; a right guess looks like a wrong one",
)
def test_guessing_what_follows_a_shared_prefix(tmp_path: Path, seen: Seen) -> None:
    file = tmp_path / "system.txt"
    file.write_text(f"{PUBLIC}\n")
    with serving(*KEYS, "--shared-prefix", file) as server:
        for path, kind in (("/chat/completions", "chats"), ("/completions", "completions")):
            match = re.search(rf"(\d+) tokens of {kind}", server.log())
            assert match is not None, server.log()
            shared = int(match[1]) // BLOCK * BLOCK

            def body(text: str, path: str = path, **options: Any) -> dict[str, Any]:
                messages = [{"role": "system", "content": PUBLIC}, {"role": "user", "content": text}]
                prompt = {"messages": messages} if path == "/chat/completions" else {"prompt": PUBLIC + text}
                return {**prompt, **options}

            assert cached(server, VICTIM, path, body(SECRET)) == 0
            wrong = cached(server, ATTACKER, path, body(WRONG))
            right = cached(server, ATTACKER, path, body(SECRET))
            salted = cached(server, VICTIM, path, body(SECRET, cache_salt="ann"))
            assert (wrong, right, salted) == (shared, shared, shared)
            assert cached(server, VICTIM, path, body(SECRET)) > shared + 2 * BLOCK
            seen(
                f"{kind}: {match[1]} tokens are public, {shared} were shared, after a right and a wrong guess"
            )
