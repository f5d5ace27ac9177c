"""The parsers that ``auto`` chooses for models with known templates."""

import json

import pytest
from support.parsed_calls import parse_calls
from support.paths import SHARED

from fllm import Tool
from fllm.chat import ChatTemplate
from fllm.model.source import locate
from fllm.parsing.tool_parameters import json_type
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


EXCERPTS: dict[str, tuple[str, str | None, str | None]] = {
    "a list in tags, explained as single tags": (
        """{{ 'Return a list within <tool_call></tool_call>:' }}
        <tool_calls>[{"name": <name>, "arguments": <arguments>}]</tool_calls>""",
        "jamba",
        None,
    ),
    "tags after special tokens": (
        """{%- set mark = ']<]minimax[>[' %}{{ mark ~ '<tool_call>' ~ mark ~ '<invoke name="' ~ call.name }}
        {%- for key, value in call.arguments %}{{ '<mm:think>' ~ thought ~ '</mm:think>' }}{% endfor %}""",
        "minimax_m3",
        "minimax_m3",
    ),
    "tags of M2 with the reasoning of M3": (
        "<minimax:tool_call></think>{{ '<mm:think>' ~ thought ~ '</mm:think>' }}",
        "minimax_m2",
        "minimax_m3",
    ),
    "DSML in function_calls": (
        "{%- set mark = '｜DSML｜' %}{% if not thinking is defined %}{% set thinking = false %}{% endif %}"
        "{{ '<' + mark + 'function_calls>' }}{{ '<｜Assistant｜></think>' }}",
        "deepseek_v32",
        "deepseek_v3",
    ),
    "DSML in tool_calls": (
        "{%- set mark = '｜DSML｜' %}{% if not thinking is defined %}{% set thinking = false %}{% endif %}"
        "{{ '<' + mark + 'tool_calls>' }}{{ '<｜Assistant｜></think>' }}",
        "deepseek_v4",
        "deepseek_v4",
    ),
    "DSML with spaces": ("{{ '<｜DSML｜ calls>' }}", "deepseek_v41", None),
    "a reply of DeepSeek without reasoning": (
        "{{ '<｜Assistant｜>' + text.split('</think>')[1] }}{{'<｜Assistant｜>'}}",
        None,
        None,
    ),
    "elements": (
        "{% macro tag(name) %}{{ '<|open|>' + name + '<|sep|>' }}{% endmacro %}<|close|>{{ tag('tools') }}"
        "{{ tag('think') }}",
        "kimi_k3",
        "kimi_k3",
    ),
    "a suffix of the checkpoint": (
        "{{ '<tool_calls{}>'.format(s) }}{{ '<tool_sep{}>' }}{{ '<arg_key{}>' }}{{ '<think{}>' }}"
        "{{ '<｜hy_Assistant{}｜>' }}",
        "hy_v3",
        "hy_v3",
    ),
    "actions, then a response": (
        "<|START_THINKING|>{{ t }}<|END_THINKING|><|START_ACTION|>[{{ calls }}]<|START_RESPONSE|>{{ text }}",
        "cohere_command3",
        "cohere_command3",
    ),
    "actions, then a text": (
        "<|START_THINKING|>{{ t }}<|END_THINKING|><|START_ACTION|>[{{ calls }}]<|START_TEXT|>{{ text }}",
        "cohere_command4",
        "cohere_command4",
    ),
    "a list between markers": (
        "{{ '<|inner_prefix|>' + t + '<|inner_suffix|>' }}{{ '<|tools_prefix|>[' }}",
        "apertus",
        "apertus",
    ),
    "functions with names in quotes": (
        """{{ '<|im_start|>assistant\\n' }}{% if enable_thinking is true %}{{ '<think>' }}{% endif %}
        {{ '<function name="' ~ f.name ~ '">' }}{{ '<param name="' ~ key ~ '">' }}</think>""",
        "minicpm5",
        "minicpmv",
    ),
    "GLM on lines of their own": (
        "[gMASK]<|assistant|></think><tool_call>{name}\n<arg_key>{key}</arg_key>\n<arg_value>",
        "glm45",
        "glm45",
    ),
    "GLM without line breaks": (
        "[gMASK]<|assistant|></think><tool_call>{name}<arg_key>{key}</arg_key><arg_value>",
        "glm47",
        "glm45",
    ),
    "arguments in messages of <assistant>": (
        "{% if enable_thinking %}<think>{% else %}</think>{% endif %}<assistant><tool_call>{name}\n"
        "<arg_key>{key}</arg_key>\n<arg_value>",
        "glm45",
        "poolside_v1",
    ),
    "messages to recipients": (
        "{{ '<|start|>assistant to=self<|message|>' }}{{ '<atem:invoke name=\"' }}",
        "muse_glimmer",
        "muse_glimmer",
    ),
    "calls of FunctionGemma": (
        "<start_function_call>call:{{ f.name }}{<escape>{{ v }}<escape>}",
        "functiongemma",
        None,
    ),
    "always open, with a switch": (
        "<|im_start|>{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>"
        "{% else %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}",
        None,
        "qwen3",
    ),
    "always open, without a switch": (
        "{{ '<|im_start|>assistant\\n<think>\\n' }}</think>",
        None,
        "deepseek_r1",
    ),
    "always open, without a switch, with tagged calls": (
        "<tool_call><function=f><parameter=p>{{ '<|im_start|>assistant\\n<think>\\n' }}</think>",
        "qwen3_coder",
        "step3p5",
    ),
    "an example that a template quotes": (
        '{{ "within <tool_call></tool_call>: {\\"name\\": <name>, \\"arguments\\": <arguments>}" }}',
        "hermes",
        None,
    ),
    "a list of calls with names of arguments": ("[func_name1(param1=value1, ...)]", "pythonic", None),
    "the same with the headers of Llama 4": (
        "<|header_start|>[func_name1(param1=value1, ...)]",
        "llama4_pythonic",
        None,
    ),
    "a word before a list": ("{{ 'functools[{\"name\": ...' }}", "phi4_mini_json", None),
    "tools between markers": ("<|tool|>{{ tools }}<|/tool|>", "phi4_mini_json", None),
    "tags that nobody explains": ("{{ '<tool_call>' + call.arguments + '</tool_call>' }}", None, None),
}
"""Excerpts that resemble templates of models, and the parsers for them."""


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


@pytest.mark.parametrize(("template", "tools", "reasoning"), EXCERPTS.values(), ids=EXCERPTS)
def test_the_parsers_are_chosen_by_what_a_template_shows(
    template: str, tools: str | None, reasoning: str | None
) -> None:
    assert chosen(template) == ([tools] if tools else [], [reasoning] if reasoning else [])


def test_lfm_is_recognized_by_its_vocabulary() -> None:
    tokens = frozenset(("<|tool_call_start|>", "<|tool_call_end|>"))
    assert chosen("List of tools: [{{ tools }}]", tokens) == (["lfm2"], [])


ARGUMENTS = {
    "title": "Milk",
    "count": 3,
    "tags": ["a"],
    "where": {"row": 1},
    "exact": True,
    "note": 'a <b> "c"\nd',
}
SCHEMA = {"type": "object", "properties": {key: {"type": json_type(each)} for key, each in ARGUMENTS.items()}}


WITHOUT_CALLS = ("ibm-granite-granite-3.3-2B-Instruct",)
"""Templates that omit the calls of a history."""


@pytest.mark.parametrize(
    "name", [name for name, (tools, _) in CHOSEN.items() if tools and name not in WITHOUT_CALLS]
)
def test_the_chosen_parser_reads_what_the_template_writes(name: str) -> None:
    file = TEMPLATES / f"{name}.jinja"
    if not file.is_file():
        pytest.skip("the templates do not lie beside this checkout")
    template = ChatTemplate.compile(
        {"default": file.read_text("utf-8")}, special_tokens={"bos_token": "<s>", "eos_token": "</s>"}
    )
    call = {"id": "123456789", "type": "function", "function": {"name": "save_note", "arguments": ARGUMENTS}}
    messages = [
        {"role": "user", "content": "Please note it."},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    tool = {"type": "function", "function": {"name": "save_note", "description": "", "parameters": SCHEMA}}
    prompt = template.render(messages, tools=[tool], add_generation_prompt=False)
    parser = OURS.tool_parsers.load(str(CHOSEN[name][0])).factory
    _, calls = parse_calls(
        parser, prompt.rpartition("note it.")[2], tools=[Tool("save_note", parameters=SCHEMA)]
    )
    assert [(name, json.loads(arguments)) for name, arguments in calls] == [("save_note", ARGUMENTS)]


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
