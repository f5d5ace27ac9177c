"""The package as a plugin."""

import subprocess
import sys

from fllm import ParserContext
from fllm.plugins.loader import load_plugins
from fllm_parsers.reasoning.deepseek_r1 import DeepSeekR1Parser
from fllm_parsers.tools.llama3_json import Llama3JsonParser

HEAVY = {"torch", "transformers", "numpy", "litestar", "tokenizers", "jinja2", "hypothesis"}


def test_the_parsers_are_found_by_name() -> None:
    plugins = load_plugins()
    assert isinstance(plugins.tool_parsers.load("llama3_json")(ParserContext()), Llama3JsonParser)
    assert isinstance(plugins.reasoning_parsers.load("deepseek_r1")(ParserContext()), DeepSeekR1Parser)


def test_both_resolvers_are_installed() -> None:
    hooks = {report.source: report.hooks for report in load_plugins().reports}
    assert "fllm_chat_template" in hooks["fllm_parsers.plugin"]
    assert hooks["fllm_parsers.templates"] == ["fllm_chat_template"]


def test_naming_imports_nothing_heavy_and_no_parser() -> None:
    code = "import sys, fllm_parsers.plugin, fllm_parsers.templates; print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(answer.stdout.split())
    assert not imported & HEAVY
    assert not {
        name for name in imported if name.startswith(("fllm_parsers.tools.", "fllm_parsers.reasoning."))
    }
