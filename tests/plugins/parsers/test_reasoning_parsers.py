"""Outputs of models, by parser; streamed and whole outputs give the same events."""

from typing import Any

import pytest

from fllm import ParserContext, Reasoning, Text, Tool
from fllm.constraints import ANY_OBJECT
from fllm.testing import ReasoningParserContract, merge_events, parse, plugins_with
from fllm_parsers import plugin

OURS = plugins_with(plugin, installed=False).reasoning_parsers

CALL = '<tool_call>{"name": "f"}</tool_call>'

TAGS = {
    "both tags": ("<think>\na\n</think>\n\nb", "\na\n", "\n\nb"),
    "opened by the prompt": ("a</think>b", "a", "b"),
    "opened by the model on a new line": ("\n<think>a</think>b", "a", "b"),
    "no end": ("<think>a", "a", ""),
    "no tag": ("a b", "a b", ""),
    "no reasoning": ("<think></think>b", "", "b"),
    "no answer": ("<think>a</think>\n\n", "a", ""),
    "a second block": ("a</think>b<think>c</think>d", "a", "b<think>c</think>d"),
}
"""How most write, where the prompt opens the reasoning."""

INTERRUPTED = {**TAGS, "a call without an end": (f"a\n{CALL}", "a\n", CALL)}

APERTUS = {
    "both markers": ("<|inner_prefix|>a<|inner_suffix|>b", "a", "b"),
    "no reasoning": ("b", "", "b"),
    "a call without an end": ("<|inner_prefix|>a<|tools_prefix|>", "a", "<|tools_prefix|>"),
}

COHERE = {
    "no markers": ("b", "", "b"),
    "no end": ("<|START_THINKING|>a", "a", ""),
    "a call": ("<|START_THINKING|>a<|END_THINKING|><|START_ACTION|>[", "a", "<|START_ACTION|>["),
    "a call without an end": ("<|START_THINKING|>a<|START_ACTION|>[", "a", "<|START_ACTION|>["),
    "again": (
        "<|START_THINKING|>a<|END_THINKING|>b<|START_THINKING|>c<|END_THINKING|>d",
        "ac",
        "bd",
    ),
}

HY = {
    **TAGS,
    "a suffix": ("<think:opensource>a</think:opensource>b", "a", "b"),
    "a suffix, opened by the prompt": ("a</think:opensource>b", "a", "b"),
    "a call without an end": ("a<tool_calls:opensource>", "a", "<tool_calls:opensource>"),
}

ROWS: dict[str, dict[str, tuple[str, str, str]]] = {
    "apertus": APERTUS,
    "apertus2509": APERTUS,
    "cohere_command3": {
        **COHERE,
        "an answer between markers": (
            "<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>b<|END_RESPONSE|>",
            "a",
            "b",
        ),
        "no answer between markers": ("<|START_RESPONSE|>b<|END_RESPONSE|>", "", "b"),
    },
    "cohere_command4": {
        **COHERE,
        "an answer between markers": (
            "<|START_THINKING|>a<|END_THINKING|><|START_TEXT|>b<|END_TEXT|>",
            "a",
            "b",
        ),
        "cut off in the answer": ("<|START_THINKING|>a<|END_THINKING|><|START_TEXT|>b", "a", "b"),
    },
    "deepseek_r1": {**TAGS, "no answer": ("<think>a</think>\n\n", "a", "\n\n")},
    "deepseek_v3": {"not asked for": ("<think>a</think>b", "", "<think>a</think>b")},
    "deepseek_v32": {"not asked for": ("<think>a</think>b", "", "<think>a</think>b")},
    "deepseek_v4": {
        **TAGS,
        "a call without an end": ("a<｜DSML｜tool_calls>", "a", "<｜DSML｜tool_calls>"),
    },
    "deepseek_v41": {**TAGS, "a call without an end": ("a<｜DSML｜ calls>", "a", "<｜DSML｜ calls>")},
    "ernie45": {
        "tags around the answer": ("a\n</think>\n\n<response>\nb\n</response>\n", "a\n", "b"),
        "a tag in the answer": ("a</think>b <response> c", "a", "b <response> c"),
        "no tags": ("a</think>\n\nb", "a", "b"),
        "cut off in the answer": ("a</think><response>b </resp", "a", "b </resp"),
    },
    "exaone4": {
        "opened by the model": ("<think>a</think>b", "a", "b"),
        "not asked for": ("a b", "", "a b"),
        "only white space": ("\n", "", "\n"),
    },
    "gemma4": {
        "a labelled channel": ("<|channel>thought\na<channel|>b", "a", "b"),
        "no label": ("<|channel>thousands<channel|>b", "thousands", "b"),
        "nothing but the label": ("<|channel>thought\n<channel|>b", "", "b"),
        "the label twice": ("<|channel>thought\nthought\na<channel|>b", "thought\na", "b"),
        "half a label": ("<|channel>thou", "thou", ""),
        "half a label before the end": ("<|channel>tho<channel|>b", "tho", "b"),
        "again": ("<|channel>thought\na<channel|>b<|channel>thought\nc<channel|>d", "ac", "bd"),
        "text before": ("Well\n<|channel>a<channel|>\nb", "a", "Well\n\nb"),
        "no channel": ("b", "", "b"),
        "an end alone": ("a<channel|>b", "", "ab"),
    },
    "gigachat35": {"not asked for": ("a b", "", "a b")},
    "glm45": INTERRUPTED,
    "glm47": INTERRUPTED,
    "granite": {
        "both sentences": ("Here is my thought process: a. Here is my response: b", " a. ", " b"),
        "short sentences": ("Here's my thought process:a\n\nHere's my response:\n\nb", "a\n\n", "\n\nb"),
        "on a new line": ("\nHere is my thought process:a", "a", ""),
        "no thought": ("b. Here is my response: c", "", "b. Here is my response: c"),
        "a thought in the answer": (
            "b. Here is my thought process: c",
            "",
            "b. Here is my thought process: c",
        ),
        "half a sentence": ("Here is my th", "", "Here is my th"),
    },
    "granite_thinking_parser": {
        "a new line before the answer": ("a</think>\n\nb\n", "a", "b\n"),
        "no answer": ("<think>a</think>\n", "a", ""),
        "no tag": ("a", "a", ""),
    },
    "holo2": TAGS,
    "hunyuan_a13b": {
        "all tags": ("<think>\na\nb\n</think>\n<answer>\nc\nd\n</answer>", "a\nb", "c\nd"),
        "on one line": ("<think>a</think><answer>b</answer>", "a", "b"),
        "no reasoning": ("<think>\n\n</think>\n<answer>\nb\n</answer>", "", "b"),
        "closed by the prompt": ("<answer>\nb\n</answer>", "", "b"),
        "no tags": ("b", "", "b"),
        "no answer tag": ("<think>a</think>\nb", "a", "b"),
        "text after the answer": ("<think>a</think><answer>b</answer>\nc", "a", "bc"),
        "tags in the answer": ("<think>a</think>b <answer> </answer>", "a", "b <answer> </answer>"),
        "tags in the reasoning": ("<think>a <answer> b</think>c", "a <answer> b", "c"),
        "another thought": ("<think>a</think>b <think>c</think>", "a", "b <think>c</think>"),
        "cut off": ("<think>\na\n</thi", "a\n</thi", ""),
    },
    "hy_v3": HY,
    "hy_v4": HY,
    "kimi_k2": {
        "white space before the end": ("<think>a \n</think>b", "a", "b"),
        "white space within": ("<think>a \n c</think>b", "a \n c", "b"),
        "nothing but white space": ("<think> </think>b", "", "b"),
        "a call without an end": (
            "a<|tool_calls_section_begin|>",
            "a",
            "<|tool_calls_section_begin|>",
        ),
    },
    "kimi_k3": {
        "opened by the prompt": (
            "a<|close|>think<|sep|><|open|>response<|sep|>b<|close|>response<|sep|><|close|>message<|sep|>",
            "a",
            "b",
        ),
        "opened by the model": ("<|open|>think<|sep|>a<|close|>think<|sep|>b", "a", "b"),
        "no end": ("a<|open|>response<|sep|>b", "a", "b"),
        "a call without an end": ("a<|open|>tools<|sep|>", "a", "<|open|>tools<|sep|>"),
        "another tag": ("a<|close|>call<|sep|>", "a<|close|>call<|sep|>", ""),
    },
    "ling3": {"not asked for": ("a b", "", "a b")},
    "mimo": INTERRUPTED,
    "minicpmv": {
        "opened by the model": ("<think>\na\n</think>\n\nb", "\na\n", "\n\nb"),
        "no reasoning": ("b", "", "b"),
        "a call without an end": (f"<think>a{CALL}", "a", CALL),
        "another call without an end": ('<think>a<function name="f">', "a", '<function name="f">'),
    },
    "minimax_m2": {**TAGS, "a call without an end": ("a<minimax:tool_call>", "a", "<minimax:tool_call>")},
    "minimax_m3": {
        "both tags": ("<mm:think>a</mm:think>b", "a", "b"),
        "closed by the model": ("</mm:think>b", "", "b"),
        "no reasoning": ("b", "", "b"),
        "a call without an end": (
            "<mm:think>a]<]minimax[>[<tool_call>",
            "a",
            "]<]minimax[>[<tool_call>",
        ),
    },
    "mistral": {
        "both markers": ("[THINK]a[/THINK]b", "a", "b"),
        "no marker": ("b", "", "b"),
        "no end": ("[THINK]a", "a", ""),
        "an end alone": ("a[/THINK]b", "", "ab"),
        "text before": ("b\n[THINK]a[/THINK]\nc", "a", "b\n\nc"),
        "again": ("[THINK]a[/THINK]b[THINK]c[/THINK]d", "ac", "bd"),
        "a bracket": ("[THINK]a [1] [/b][/THINK][", "a [1] [/b]", "["),
    },
    "nemotron_v3": INTERRUPTED,
    "olmo3": TAGS,
    "plamo3": {
        "both markers": ("<|plamo:begin_think:plamo|>a<|plamo:end_think:plamo|>b", "a", "b"),
        "opened by the prompt": ("a<|plamo:end_think:plamo|>b", "a", "b"),
        "again": ("a<|plamo:end_think:plamo|>b<|plamo:begin_think:plamo|>c", "ac", "b"),
        "a call without an end": (
            "a<|plamo:begin_tool_requests:plamo|>",
            "a",
            "<|plamo:begin_tool_requests:plamo|>",
        ),
    },
    "poolside_v1": {"not asked for": ("<think>a</think>b", "", "<think>a</think>b")},
    "qwen3": INTERRUPTED,
    "seed_oss": {
        "both tags": ("<seed:think>a</seed:think>b", "a", "b"),
        "its budget": ("a<seed:cot_budget_reflect>", "a<seed:cot_budget_reflect>", ""),
        "a call without an end": ("a<seed:tool_call>", "a", "<seed:tool_call>"),
    },
    "step3": TAGS,
    "step3p5": {
        "white space before the end": ("\na\n\n</think>\n\nb", "\na", "\n\nb"),
        "tags in the answer": ("<think>a</think>b<think>c</think>", "a", "b<think>c</think>"),
    },
}


OTHERS = ("identity", "minimax_m2_append_think", "muse_glimmer", "openai_gptoss", "raw")
"""Parsers with tests of their own, because they are not declarations of markers."""


def class_of(name: str) -> Any:
    """Return the class of a parser, whose attributes declare its markers."""
    return OURS.load(name).factory


TOLD_NOT_TO = [name for name in ROWS if class_of(name).template_flags]


def read(name: str, text: str, **context: Any) -> tuple[str, str]:
    """The reasoning and the answer."""
    events = parse(OURS.load(name)(ParserContext(**context)), [text])
    reasoning = "".join(event.text for event in events if isinstance(event, Reasoning))
    return reasoning, "".join(event.text for event in events if isinstance(event, Text))


def test_every_name_has_rows() -> None:
    assert sorted([*ROWS, *OTHERS]) == OURS.names()


@pytest.mark.parametrize(
    ("name", "text", "reasoning", "answer"),
    [
        pytest.param(name, *row, id=f"{name}-{what}")
        for name, rows in ROWS.items()
        for what, row in rows.items()
    ],
)
def test_reasoning_is_told_from_the_answer(name: str, text: str, reasoning: str, answer: str) -> None:
    assert read(name, text) == (reasoning, answer)


@pytest.mark.parametrize("name", ROWS)
def test_the_law_holds(name: str) -> None:
    parser: Any = class_of(name)

    class Law(ReasoningParserContract):
        samples = tuple(text for text, _, _ in ROWS[name].values())
        markers = parser.visible_tokens
        fragments = tuple(marker[:4] for marker in parser.visible_tokens)
        max_examples = 40

    Law.parser = parser
    law = Law()
    law.test_one_character_at_a_time_gives_the_same_events()
    law.test_any_division_gives_the_same_events()
    law.test_events_are_well_formed_and_no_text_is_lost()


@pytest.mark.parametrize("name", ROWS)
def test_what_the_prompt_opened_is_reasoning_and_what_it_closed_is_not(name: str) -> None:
    opening, closing = class_of(name).opening[0], class_of(name).closing[0]
    assert read(name, f"a{closing}b", prompt=f"<user>{closing}\n<assistant>{opening}\n") == ("a", "b")
    assert read(name, "a b", prompt=f"<assistant>{opening}\n\n{closing}\n\n") == ("", "a b")


@pytest.mark.parametrize("name", TOLD_NOT_TO)
def test_all_is_answer_where_the_request_wants_no_reasoning(name: str) -> None:
    parser = class_of(name)
    switch, opening, closing = parser.template_flags[0], parser.opening[0], parser.closing[0]
    text = f"{opening}a{closing}b"
    assert read(name, text, template_kwargs={switch: False}) == ("", text)
    assert read(name, f"a{closing}b", template_kwargs={switch: True}) == ("a", "b")
    assert read(name, "a", template_kwargs={switch: None}) == read(name, "a")


def test_what_the_prompt_says_counts_more_than_the_request() -> None:
    assert read("qwen3", "a</think>b", prompt="<think>\n", template_kwargs={"enable_thinking": False}) == (
        "a",
        "b",
    )
    assert read("qwen3", "b", prompt="<think></think>", template_kwargs={"enable_thinking": True}) == (
        "",
        "b",
    )


@pytest.mark.parametrize("name", ROWS)
def test_a_constrained_answer_follows_the_reasoning_and_the_white_space_between_them(name: str) -> None:
    parser: Any = OURS.load(name)(
        ParserContext(template_kwargs=dict.fromkeys(class_of(name).template_flags, True), constrained=True)
    )
    events = parse(parser, [f"{parser.opening[0]}a {parser.closing[0]}\n\n" + '{"b": "<think>"}'])
    assert "".join(event.text for event in events if isinstance(event, Reasoning)).strip() == "a"
    assert events[-1] == Text('{"b": "<think>"}')


AGAIN = ("cohere_command3", "cohere_command4", "gemma4", "kimi_k3", "mistral", "plamo3")
"""Their markers are special tokens, which begin further reasoning."""


@pytest.mark.parametrize("name", [name for name in ROWS if name not in AGAIN])
def test_tags_in_an_answer_stay_word_for_word(name: str) -> None:
    opening, closing = class_of(name).opening[0], class_of(name).closing[0]
    kwargs = dict.fromkeys(class_of(name).template_flags, True)
    answer = f"Use `{opening}` and `{closing}`,{opening}{closing}\n{closing} {opening}."
    text = f"{opening}x{closing}{answer}"
    assert read(name, text, template_kwargs=kwargs) == ("x", answer)
    assert read(name, f"x{closing}{answer}", prompt=opening) == ("x", answer)
    assert read(name, answer, prompt=f"{opening}{closing}") == ("", answer)
    assert read(name, answer, continued_message="To show your thoughts:") == ("", answer)


MARKERS = {name: class_of(name).implicit_end for name in ROWS if class_of(name).implicit_end}
CALLS = {
    "<tool_call>": (
        '{"name": "f", "arguments": {}}</tool_call>',
        '\n{ "name" : "f"}',
        '{"arguments": {"x": 1}, "name": "f"}',
        "\n<function=f>\n</function>",
        "f<arg_key>x</arg_key>",
        "f\n<arg_key>",
        "f</tool_call>",
    ),
    "<seed:tool_call>": ("\n<function=f>",),
    "<minimax:tool_call>": ('\n<invoke name="f">',),
    "<|tool_calls_section_begin|>": ("<|tool_call_begin|>functions.f:0",),
    "<|tool_call_section_begin|>": (" <|tool_call_begin|>",),
    "<｜DSML｜tool_calls>": ('\n<｜DSML｜invoke name="f">',),
    "<｜DSML｜ calls>": ('\n<｜DSML｜ invoke name="f">',),
    "<｜GCML｜tool_calls>": ('\n<｜GCML｜invoke name="f">',),
    "<|tools_prefix|>": ('[{"f": {}}]', '[{"f'),
    "<|START_ACTION|>": ('[\n    {"tool_call_id": "0", "tool_name": "f"', '[{"tool_name": "f"'),
    "<tool_calls>": ("\n<tool_call>f<tool_sep>", "<tool_call>f<arg_key>", "<tool_call>f</tool_call>"),
    "<tool_calls:opensource>": (
        "\n<tool_call:opensource>f<tool_sep:opensource>",
        "<tool_call:opensource>f</tool_call:opensource>",
    ),
    "<tool_calls:6124c78e>": ("<tool_call:6124c78e>f<arg_key:6124c78e>",),
    "<|open|>tools<|sep|>": ('<|open|>call tool="f" index="1"<|sep|>',),
    "<function name=": ('"f">',),
    "]<]minimax[>[<tool_call>": ('\n]<]minimax[>[<invoke name="f">',),
    "<|plamo:begin_tool_requests:plamo|>": ("<|plamo:begin_tool_request:plamo|>",),
}
"""What follows each marker where it begins a call."""
MENTIONS = (
    "` is the tag",
    " and others",
    "</tool_call> are the tags",
    '{"name": <function-name>, "arguments": <args-json-object>}</tool_call>',
    '{"name": "...", "arguments": {}}',
    "<function=...>",
    "<function=another>",
    "another<arg_key>",
    "\n\nIf it is there, <arg_key> follows.",
    "<",
    '{"',
    "{}",
    " " * 300 + "{",
    "\n" + "x" * 300,
)
"""What follows a marker that is only mentioned."""
F = (Tool("f"),)


@pytest.mark.parametrize(
    ("name", "marker"), [(name, each) for name, all_ in MARKERS.items() for each in all_]
)
def test_a_call_ends_the_reasoning_and_a_mention_does_not(name: str, marker: str) -> None:
    closing = class_of(name).closing[0]
    context = {"prompt": class_of(name).opening[0], "tools": F}
    for begun in CALLS[marker]:
        assert read(name, f"a{marker}{begun}", **context) == ("a", marker + begun)
        assert read(name, f"a{marker}.{marker}{begun}", **context) == (f"a{marker}.", marker + begun)
    for mention in MENTIONS:
        reasoning = f"a{marker}{mention}."
        assert read(name, f"{reasoning}{closing}b", **context) == (reasoning, "b")
    for cut in range(len(CALLS[marker][0])):
        text = marker + CALLS[marker][0][:cut]
        assert read(name, f"a{text}", **context) == ("a", text)


def test_text_after_a_mention_is_not_held_back() -> None:
    parser = OURS.load("qwen3")(ParserContext())
    assert parser.feed("a <tool_call>") == [Reasoning("a ")]
    assert parser.feed(" t") == []
    assert merge_events(parser.feed("ag. b")) == [Reasoning("<tool_call> tag. b")]


@pytest.mark.parametrize("name", ROWS)
def test_a_message_that_is_continued_is_answer_unless_its_reasoning_is_open(name: str) -> None:
    opening, closing = class_of(name).opening[0], class_of(name).closing[0]
    for kwargs in ({}, *({flag: True} for flag in class_of(name).template_flags)):
        for message in ("The answer is", "", f"{opening}a{closing}The answer is", f"{closing}a"):
            prompt = f"<user>a<assistant>{message}"
            context = {"continued_message": message, "prompt": prompt, "template_kwargs": kwargs}
            assert read(name, " 42\n", **context) == ("", " 42\n")
        message = f"{opening}\nhmm"
        context = {"continued_message": message, "prompt": message, "template_kwargs": kwargs}
        assert read(name, f" 42{closing}b", **context) == (" 42", "b")
        constrained = OURS.load(name)(ParserContext(constrained=True, continued_message="a"))
        assert constrained.constrain_output(ANY_OBJECT) == ANY_OBJECT


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("name", ROWS)
def test_the_forced_end_of_the_reasoning_ends_it(name: str, constrained: bool) -> None:
    context = {"prompt": class_of(name).opening[0], "constrained": constrained}
    limit = OURS.load(name)(ParserContext(**context)).limit_reasoning(5)
    assert (limit.max_tokens, limit.inside) == (5, True)
    assert limit.end.startswith(tuple(limit.closing))
    assert read(name, f"a{limit.end}b", **context) == ("a", "b")


@pytest.mark.parametrize("name", ROWS)
def test_there_is_no_limit_where_the_prompt_has_closed_the_reasoning(name: str) -> None:
    parser = OURS.load(name)(ParserContext(prompt=class_of(name).closing[0]))
    limit = parser.limit_reasoning(5)
    assert limit is None or (limit.reopens and not limit.inside)
