"""The parsers that ``auto`` chooses for models with known templates."""

import pytest
from support.paths import SHARED

from fllm.model.source import locate
from fllm.plugins.parser_detection import ModelTraits, ParserEntry, detect
from fllm.testing import plugins_with
from fllm_parsers import plugin

TEMPLATES = SHARED / "templates"
OURS = plugins_with(plugin, installed=False)

CHOSEN: dict[str, tuple[str | None, str | None]] = {
    "GLM-4.6": ("glm45", "glm45"),
    "HuggingFaceTB-SmolLM3-3B": (None, "qwen3"),
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": ("hermes", None),
    "Qwen-QwQ-32B": ("hermes", "deepseek_r1"),
    "Qwen-Qwen2.5-7B-Instruct": ("hermes", None),
    "Qwen-Qwen3-0.6B": ("hermes", "qwen3"),
    "Qwen3-Coder": ("qwen3_coder", None),
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": ("deepseek_v3", "deepseek_r1"),
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": ("deepseek_v3", "deepseek_r1"),
    "deepseek-ai-DeepSeek-V3.1": ("deepseek_v31", "deepseek_v3"),
    "google-gemma-2-2b-it": (None, None),
    "ibm-granite-granite-3.3-2B-Instruct": ("granite", None),
    "meta-llama-Llama-3.1-8B-Instruct": ("llama3_json", None),
    "meta-llama-Llama-3.2-3B-Instruct": ("llama3_json", None),
    "microsoft-Phi-3.5-mini-instruct": (None, None),
    "mistralai-Mistral-Nemo-Instruct-2407": ("mistral", None),
    "moonshotai-Kimi-K2": ("kimi_k2", None),
    "openai-gpt-oss-120b": ("openai", "openai_gptoss"),
}
"""The tool-call parser and the reasoning parser, by the name of the template."""


def chosen(templates: str, tokens: frozenset[str] = frozenset()) -> tuple[list[str], list[str]]:
    model = ModelTraits(templates, tokens.__contains__)
    return detect(OURS.tool_parsers, model), detect(OURS.reasoning_parsers, model)


def test_every_template_that_we_have_is_in_the_table() -> None:
    if not TEMPLATES.is_dir():
        pytest.skip("the templates do not lie beside this checkout")
    assert {file.stem for file in TEMPLATES.glob("*.jinja")} == CHOSEN.keys()


@pytest.mark.parametrize("name", CHOSEN)
def test_the_parsers_are_chosen_by_the_template(name: str) -> None:
    file = TEMPLATES / f"{name}.jinja"
    if not file.is_file():
        pytest.skip("the templates do not lie beside this checkout")
    tools, reasoning = CHOSEN[name]
    assert chosen(file.read_text("utf-8")) == ([tools] if tools else [], [reasoning] if reasoning else [])


def test_nothing_is_chosen_for_the_embedded_model() -> None:
    gguf = pytest.importorskip("gguf")
    scanner = gguf.GGUFReader(locate(None).location)
    template = scanner.get_field("tokenizer.chat_template").contents()
    assert chosen(template) == ([], [])


@pytest.mark.parametrize("registry", [OURS.tool_parsers, OURS.reasoning_parsers], ids=["tools", "reasoning"])
def test_no_two_parsers_have_the_same_signs(registry: object) -> None:
    entries = [each.entry for each in registry]  # type: ignore[attr-defined]
    evidence = [each.evidence for each in entries if isinstance(each, ParserEntry) and each.evidence]
    assert len(set(evidence)) == len(evidence)
