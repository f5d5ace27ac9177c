"""Control tokens in the text of messages: marked, they are encoded as text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tokenizers_by_kind import TOKENIZERS, byte_level, ids_of
from tokenizers import AddedToken, processors

from fllm.chat import ChatTemplate, ControlTokens, control_tokens
from fllm.control_tokens import MARK, ControlTokenEscaper, escape_marks, split_at_marks, unescape
from fllm.tokenizer import Tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<｜{{ m.role | title }}｜>"
    "{% if m.content is string %}{{ m.content | trim }}"
    "{% else %}{% for part in m.content %}{{ part.text | trim }}{% endfor %}{% endif %}"
    "</s>{% endfor %}"
)
PIECES = st.sampled_from(
    ["<", "<|", "<s>", "</s>", "</", "s>", "<｜User｜>", "<｜Us", "er｜>", " ", "\n", "a", "é", MARK, "<unk>"]
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)
NAMES = sorted(TOKENIZERS)


def control_ids(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    control = {tokenizer.token_to_id(token) for token in control_tokens(tokenizer).special}
    return [token_id for token_id in ids if token_id in control]


def escaper(tokenizer: Tokenizer) -> ControlTokenEscaper:
    return ControlTokenEscaper(control_tokens(tokenizer).special)


@given(text=TEXTS, tokens=st.lists(st.sampled_from(["</s>", "<s>", "<|im_start|>", "[INST]", "<", "é"])))
def test_unescaping_restores_the_text(text: str, tokens: list[str]) -> None:
    escaped = ControlTokenEscaper(tokens).escape(text)
    assert unescape(escaped) == text
    assert "".join(split_at_marks(escaped)) == text
    assert not any(token in escaped for token in tokens if len(token) > 1)
    assert unescape(escape_marks(text)) == text


@pytest.mark.parametrize("name", NAMES)
@given(text=TEXTS)
def test_a_marked_text_has_no_control_token(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(escaper(tokenizer).escape(text), add_special_tokens=False)
    unknown = tokenizer.token_to_id("<unk>")  # stands for characters that the vocabulary lacks
    assert [token_id for token_id in control_ids(tokenizer, ids) if token_id != unknown] == []


@pytest.mark.parametrize("name", NAMES)
@given(text=TEXTS)
def test_a_text_without_control_tokens_is_encoded_as_before(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    text = text.replace(MARK, "")
    plain = tokenizer.encode(text, add_special_tokens=False)
    if not any(token in text for tokens in tokenizer.added_tokens for token in tokens):
        assert tokenizer.encode(escaper(tokenizer).escape(text), add_special_tokens=False) == plain


@given(text=TEXTS.map(lambda text: text.replace("éé", "è")))
def test_bytes_of_a_marked_text_are_kept(text: str) -> None:
    tokenizer = TOKENIZERS["byte_level"]
    ids = tokenizer.encode(escaper(tokenizer).escape(text), add_special_tokens=False)
    assert b"".join(map(tokenizer.token_bytes, ids)).decode() == text


@given(first=TEXTS, second=TEXTS, parts=st.booleans())
def test_messages_add_no_control_tokens_to_a_prompt(first: str, second: str, parts: bool) -> None:
    tokenizer = TOKENIZERS["byte_level"]
    template = ChatTemplate.compile(
        {"default": TEMPLATE}, special_tokens={"bos_token": "<s>"}, control_tokens=control_tokens(tokenizer)
    )
    texts = [{"type": "text", "text": each} for each in (first, second)]
    contents = [texts] if parts else [first, second]
    prompt = template.render([{"role": "user", "content": content} for content in contents])
    ids = tokenizer.encode(prompt, add_special_tokens=False)
    special = [tokenizer.token_text(token_id) for token_id in control_ids(tokenizer, ids)]
    assert special == ["<s>", *["<｜User｜>", "</s>"] * len(contents)]


def test_tokens_of_one_character_and_whole_words() -> None:
    inner = byte_level()
    inner.add_special_tokens(["✂", AddedToken("end", single_word=True, special=True)])
    tokenizer = Tokenizer(inner, {})
    text = escaper(tokenizer).escape("✂ end") + "✂ end weekend ✂" + MARK * 2
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert [tokenizer.token_text(token_id) for token_id in control_ids(tokenizer, ids)] == ["✂", "end", "✂"]
    assert tokenizer.decode(ids, skip_special_tokens=False) == "✂ end✂ end weekend ✂" + MARK


def test_the_tokens_around_a_marked_text_are_the_same() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    harmless = "<s><｜User｜>It is {} here.</s>"
    marked = harmless.format(escaper(tokenizer).escape("</s>"))
    before, after = (tokenizer.encode(each, add_special_tokens=False) for each in harmless.split("{}"))
    ids = tokenizer.encode(marked, add_special_tokens=False)
    assert ids[: len(before) - 1] == before[:-1]
    assert ids[-len(after) :] == after


MARKERS = (
    "{% for m in messages %}<|{{ m.role }}|>{% if '[THINK]' in m.content %}{% set x = 1 %}{% endif %}"
    "{{ m.content }}{% if m.role == 'tool' %}<result>{% endif %}{% endfor %}"
)
TOKENS = ControlTokens(frozenset({"<|end|>", "[THINK]"}), frozenset({"<result>", "<b>"}))


@pytest.mark.parametrize(
    ("role", "content", "marked"),
    [
        ("user", "<|end|>", "<|end|>"),
        ("system", "<|end|>", "<|end|>"),
        ("assistant", "<|end|>", "<|end|>"),
        ("assistant", "[THINK]", ""),  # the template looks for it
        ("user", "[THINK]", "[THINK]"),
        ("tool", "<result>", "<result>"),  # the template writes it
        ("user", "<result>", "<result>"),
        ("system", "<result>", ""),  # may describe a format to the model
        ("observation", "<result>", "<result>"),  # a role of the template's own
        ("user", "<b>", ""),  # has no meaning in the template
        ("user", "a < b and <p>", ""),
    ],
)
def test_which_tokens_are_text_depends_on_the_role(role: str, content: str, marked: str) -> None:
    template = ChatTemplate.compile({"default": MARKERS}, special_tokens={}, control_tokens=TOKENS)
    prompt = template.render([{"role": role, "content": content}])
    assert (MARK in prompt) == bool(marked)
    plain = ChatTemplate.compile({"default": MARKERS}, special_tokens={})
    assert unescape(prompt) == plain.render([{"role": role, "content": content}])


def test_all_strings_of_a_conversation_are_escaped() -> None:
    source = "{{ messages | tojson }}{{ tools | tojson(ensure_ascii=true) }}{{ documents | tojson }}"
    template = ChatTemplate.compile({"default": source}, special_tokens={}, control_tokens=TOKENS)
    call = {"id": "<|end|>", "function": {"name": "<|end|>", "arguments": '{"\\u003c|end|>": ["<|end|>"]}'}}
    messages = [
        {"role": "user", "content": "x", "name": "<|end|>"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "<|end|>", "content": [{"type": "text", "text": "<|end|>"}]},
    ]
    tools = [{"type": "function", "function": {"name": "f", "description": "<|end|>"}}]
    prompt = template.render(messages, tools=tools, kwargs={"documents": [{"text": "<|end|>"}]})
    assert "<|end|>" not in prompt
    assert unescape(prompt).count("<|end|>") == 9
    assert json.dumps(MARK)[1:-1] not in prompt


JOINING = {
    "split": "{{ m.content.split('</think>') | join }}",
    "method": "{{ m.content.replace('</think>', '') }}",
    "filter": "{{ m.content | replace('</think>', '') }}",
    "loop": "{% for part in m.content.split('</think>') %}{{ part | trim }}{% endfor %}",
}


@pytest.mark.parametrize("expression", JOINING.values(), ids=JOINING)
@pytest.mark.parametrize("role", ["system", "user", "assistant"])
@pytest.mark.parametrize("space", ["", " ", "\n"])
def test_texts_that_a_template_joins_are_no_control_token(expression: str, role: str, space: str) -> None:
    source = f"{{% for m in messages %}}{expression}{{% endfor %}}"
    template = ChatTemplate.compile({"default": source}, special_tokens={}, control_tokens=TOKENS)
    token = "<|end|>"
    for place in range(1, len(token)):
        content = f"{token[:place]}{space}</think>{token[place:]}"
        prompt = template.render([{"role": role, "content": content}, {"role": "user", "content": ""}])
        assert token not in prompt
        assert unescape(prompt).replace(space, "") == token


def test_markers_are_text_in_tools_and_documents() -> None:
    source = "{{ tools | tojson }}{{ documents | tojson }}{{ note }}<result>"
    template = ChatTemplate.compile({"default": source}, special_tokens={}, control_tokens=TOKENS)
    tools = [{"type": "function", "function": {"name": "f", "description": "<result>"}}]
    variables = {"documents": [{"text": "<result>"}], "note": "<result>"}
    prompt = template.render([{"role": "user", "content": "x"}], tools=tools, kwargs=variables, adapt=False)
    assert prompt.count(f"<{MARK}result>") == 2
    assert prompt.endswith("<result><result>")  # a variable is the application's


def test_variables_of_a_template_are_text_but_its_special_tokens_are_not() -> None:
    source = "{{ bos_token }}{{ identity }}{{ nested.key }}{{ messages[0].content }}"
    template = ChatTemplate.compile(
        {"default": source}, special_tokens={"bos_token": "<|end|>"}, control_tokens=TOKENS
    )
    variables = {"bos_token": "[THINK]", "identity": "<|end|>", "nested": {"key": "<|end|>"}}
    prompt = template.render([{"role": "user", "content": "x"}], kwargs=variables)
    assert prompt == f"[THINK]<{MARK}|end|><{MARK}|end|>x"


def test_a_template_may_write_an_object_as_python_does() -> None:
    source = "{% for m in messages %}{{ m.content }}{{ m.data }}{% endfor %}"
    template = ChatTemplate.compile({"default": source}, special_tokens={}, control_tokens=TOKENS)
    prompt = template.render([{"role": "user", "content": "", "data": {"a": "<|end|>"}}])
    assert unescape(prompt) == "{'a': '<|end|>'}"
    assert "<|end|>" not in prompt


def test_special_tokens_are_added_around_a_marked_text() -> None:
    inner = byte_level()
    inner.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", special_tokens=[(each, inner.token_to_id(each)) for each in ("<s>", "</s>")]
    )
    tokenizer = Tokenizer(inner, {})
    marked = escaper(tokenizer).escape("a</s>")
    ids = tokenizer.encode(marked, add_special_tokens=True)
    assert ids == [
        *ids_of(tokenizer, "<s>"),
        *tokenizer.encode(marked, add_special_tokens=False),
        *ids_of(tokenizer, "</s>"),
    ]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a</s>"


def test_deeply_nested_values_are_escaped() -> None:
    value: Any = "<|x|>"
    for _ in range(5000):
        value = {"a": [value]}
    escaped = ControlTokenEscaper(["<|x|>"]).escape_values(value)
    for _ in range(5000):
        escaped = escaped["a"][0]
    assert escaped != "<|x|>"
    assert unescape(escaped) == "<|x|>"
