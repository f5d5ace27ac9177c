"""What must stay light: nothing heavy is imported before somebody needs it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "aiohttp",
    "asyncio",
    "gguf",
    "huggingface_hub",
    "jinja2",
    "litestar",
    "numpy",
    "prometheus_client",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
    "uvicorn",
}


def imported_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after this code."""
    script = f"{code}\nimport json, sys\njson.dump(sorted(sys.modules), sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr))


@pytest.mark.parametrize(
    "code",
    [
        "import fllm",
        "from fllm.plugins.loader import load_plugins; load_plugins()",
        "import fllm_api.cli",
    ],
)
def test_importing_the_core_and_naming_plugins_loads_nothing_heavy(code: str) -> None:
    loaded = imported_by(code)
    assert not loaded & HEAVY


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["plugins"],
        ["plugins", "--json"],
        ["plugins", "show", "torch"],
        ["version"],
        ["serve", "--help"],
        ["bench", "throughput", "--help"],
    ],
)
def test_a_command_that_only_answers_loads_nothing_heavy(arguments: list[str]) -> None:
    loaded = imported_by(
        "import sys\n"
        f"sys.argv = ['furiosa-llm', *{arguments!r}]\n"
        "from fllm_api.cli import main\n"
        "try: main()\n"
        "except SystemExit as ended: assert not ended.code, ended.code"
    )
    assert not loaded & HEAVY


def test_a_broken_import_would_be_seen() -> None:
    assert "jinja2" in imported_by("import fllm, jinja2")


def test_the_core_imports_no_room_of_ours() -> None:
    loaded = imported_by(
        "import fllm, fllm.plugins, fllm.chat, fllm.tokenizer, fllm.model.source, fllm.model.devices"
    )
    assert not {name.partition(".")[0] for name in loaded} & {
        "fllm_api",
        "fllm_backends",
        "fllm_bench",
        "fllm_metrics",
        "fllm_parsers",
        "fllm_placements",
        "fllm_pooling",
        "rich_click",
    }
