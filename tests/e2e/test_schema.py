"""The OpenAPI schema matches the server: requests generated from it never cause a server error."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
from support.http_server import Server
from support.model_scripts import LLAMA31_WEATHER
from support.paths import TESTS

CONFIG = TESTS / "schemathesis.toml"


def test_generated_requests_never_break_the_server(scripted: Callable[..., Server], tmp_path: Path) -> None:
    server = scripted(LLAMA31_WEATHER, "--tool-call-parser", "llama3_json", "--enable-metrics")
    schemathesis = Path(sys.executable).with_name("schemathesis")
    # Many generated ids are the same path once they are quoted, so the generator filters many examples out.
    options = "--checks all --max-time 45 --max-examples 100 --request-timeout 20 --seed 1 --no-color"
    quirks = "--generation-database none --warnings off --suppress-health-check filter_too_much"
    done = subprocess.run(
        [
            schemathesis,
            "--config-file",
            CONFIG,
            "run",
            f"{server.url}/schema/openapi.json",
            *options.split(),
            *quirks.split(),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_the_schema_has_every_documented_parameter(server: Server) -> None:
    schemas = httpx.get(f"{server.url}/schema/openapi.json").json()["components"]["schemas"]
    shared = {
        "model", "stream", "stream_options", "n", "temperature", "top_p", "best_of", "use_beam_search",
        "top_k", "min_p", "length_penalty", "early_stopping", "min_tokens", "max_tokens", "logprobs",
    }  # fmt: skip
    chat = {"messages", "max_completion_tokens", "tools", "tool_choice", "top_logprobs"}
    assert shared | chat <= set(schemas["ChatRequest"]["properties"])
    assert shared | {"prompt"} <= set(schemas["CompletionRequest"]["properties"])
