"""Blocks on disk in a real server: a restart, API keys and metrics."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from fllm.testing import Server, serving

PROMPT = " ".join(f"word{number}" for number in range(100))
KEYS = ("one-key", "another-key")


def complete(server: Server, key: str = KEYS[0]) -> tuple[str, int]:
    """Return a greedy text, and how many tokens of the prompt were cached."""
    body = {"model": "m", "prompt": PROMPT, "max_tokens": 8, "temperature": 0}
    headers = {"Authorization": f"Bearer {key}"}
    response = httpx.post(f"{server.api}/completions", json=body, headers=headers, timeout=60)
    response.raise_for_status()
    usage = response.json()["usage"]
    return response.json()["choices"][0]["text"], usage["prompt_tokens_details"]["cached_tokens"]


def test_blocks_survive_a_restart_and_stay_those_of_their_client(tmp_path: Path) -> None:
    keys = [part for key in KEYS for part in ("--api-key", key)]
    options = [*keys, "--kv-cache-dir", tmp_path / "kv", "--enable-metrics", "--kv-cache-dir-size", "1GiB"]
    with serving(*options) as server:
        text, cached = complete(server)
        assert cached == 0
    with serving(*options) as server:
        assert complete(server, KEYS[1]) == (text, 0)
        again, cached = complete(server)
        assert again == text
        assert cached > 200
        page = httpx.get(f"{server.url}/metrics", headers={"x-api-key": KEYS[0]}).text
        samples = dict(re.findall(r'furiosa_llm:kv_offload_(\w+){.*tier="disk"} (\S+)', page))
    assert float(samples["hits_total"]) == cached
    assert float(samples["used_bytes"]) >= float(samples["read_bytes_total"]) > 0
    assert float(samples["limit_bytes"]) == 2**30
