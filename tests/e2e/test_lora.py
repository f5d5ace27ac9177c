"""LoRA adapters in a real server: OpenAI's client, loading at run time, a crash of the engine."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from support.api_fakes import byte_tokenizer
from support.http_server import Server, run, serving
from support.lora_adapters import save_adapter
from support.tiny_models import save_model

PROMPT = [5, 17, 40, 8, 22, 91, 3, 60, 61, 62]
TOKENS = 6


class Files:
    """A model, two adapters, and the merged models, by the name of the adapter."""

    def __init__(self, root: Path) -> None:
        self.model = root / "model"
        self.adapters = root / "adapters"
        base = save_model("Llama", self.model, vocab_size=320, eos_token_id=None)
        byte_tokenizer()._inner.save(str(self.model / "tokenizer.json"))
        self.merged: dict[str, Any] = {"base": base}
        for seed, name in enumerate(("sql", "law")):
            self.merged[name] = save_adapter(base, self.adapters / name, seed=seed)

    @torch.inference_mode()
    def expected(self, name: str) -> list[int]:
        ids = list(PROMPT)
        for _ in range(TOKENS):
            ids.append(int(self.merged[name](torch.tensor([ids])).logits[0, -1].argmax()))
        return ids[len(PROMPT) :]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("lora"))


@pytest.fixture(scope="module")
def server(files: Files) -> Iterator[Server]:
    with serving(
        *(files.model, "--quantization", "none", "--served-model-name", "base"),
        *("--lora-modules", f"sql={files.adapters / 'sql'}"),
        *("--enable-runtime-lora-loading", "--lora-dir", files.adapters),
    ) as running:
        yield running


def generate(server: Server, model: str) -> list[int]:
    with openai.OpenAI(base_url=server.api, api_key="none", max_retries=0) as client:
        response = client.completions.create(
            model=model,
            prompt=PROMPT,
            max_tokens=TOKENS,
            temperature=0,
            extra_body={"return_token_ids": True, "ignore_eos": True},
        )
    assert response.model == model
    token_ids: list[int] = response.choices[0].model_extra["token_ids"]  # type: ignore[index]
    return token_ids


def load(server: Server, name: str, path: Path) -> httpx.Response:
    body = {"lora_name": name, "lora_path": str(path)}
    return httpx.post(f"{server.api}/load_lora_adapter", json=body, timeout=60)


def engine_pid(server: Server) -> int:
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    [engine] = [child for child in children if "engine" in Path(f"/proc/{child}/cmdline").read_text()]
    return int(engine)


def test_adapters_are_chosen_loaded_and_survive_a_crash(server: Server, files: Files) -> None:
    assert generate(server, "base") == files.expected("base")
    assert generate(server, "sql") == files.expected("sql")
    assert load(server, "law", files.adapters / "law").status_code == 200
    assert generate(server, "law") == files.expected("law")
    with openai.OpenAI(base_url=server.api, api_key="none") as client:
        assert [model.id for model in client.models.list()] == ["base", "sql", "law"]
    os.kill(engine_pid(server), signal.SIGKILL)
    deadline = time.monotonic() + 120
    while httpx.get(f"{server.url}/health", timeout=60).status_code != 200:
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.2)
    for name in ("law", "sql", "base"):
        assert generate(server, name) == files.expected(name)
    response = httpx.post(f"{server.api}/unload_lora_adapter", json={"lora_name": "law"})
    assert response.status_code == 200
    with pytest.raises(openai.NotFoundError):
        generate(server, "law")


def test_a_bad_adapter_is_one_line_and_exit_status_2(files: Files, tmp_path: Path) -> None:
    done = run("serve", str(files.model), "--lora-modules", f"a={tmp_path}")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "adapter_config.json" in done.stderr
    assert sys.executable not in done.stderr
