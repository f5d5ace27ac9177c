"""Limits of rendering the model's own template: time, memory, and the event loop."""

from __future__ import annotations

import asyncio

import pytest

from fllm.chat import ChatTemplate
from fllm.chat.compiled_template import TemplateTooComplex
from fllm.chat.template import SlowTemplate
from fllm.concurrency.thread_watchdog import ThreadWatchdog
from fllm.errors import RequestError

ENDLESS = "{% for x in range(99999) %}{% for y in range(99999) %}{% set z = y %}{% endfor %}{% endfor %}"
IF_ASKED = f"{{% if messages[-1].content == 'loop' %}}{ENDLESS}{{% endif %}}{{{{ messages[-1].content }}}}"
LOOP = [{"role": "user", "content": "loop"}]


def compiled(source: str) -> ChatTemplate:
    watchdog = ThreadWatchdog(cpu_seconds=0.4, memory=1 << 30)
    return ChatTemplate.compile({"default": source}, special_tokens={}, watchdog=watchdog)


def test_a_template_that_loops_is_not_compiled() -> None:
    with pytest.raises(TemplateTooComplex, match=r"takes more than 0\.4 s"):
        compiled(ENDLESS)


@pytest.mark.parametrize(
    "expression",
    [
        "'a' * 10**9",
        "10**9 * 'a'",
        "[1] * 10**9",
        "7 ** (7 ** 9)",
        "2 ** 99999 * 2 ** 99999",
        "'a'.ljust(10**9)",
        "'a'['center'](10**9)",
        "'a'|center(10**9)",
        "('a\\n' * 9999)|indent(10**5)",
        "('a' * 99999).replace('a', 'b' * 9999)",
        "('a' * 99999)|replace('a', 'b' * 9999)",
        "('a' * 9999).join(range(9999)|list)",
        "('a' * 99999).translate({97: 'b' * 9999})",
        "('a' * 99999)|replace(new='b' * 9999, old='a')",
        "(range(9999)|list)|join('a' * 9999)",
        "(range(9999)|map('string'))|join(d='a' * 9999)",
        "('a' * 9999).join(range(9999)|map('string'))",
        "[1]|tojson(indent=10**9)",
        "[1, 2]|tojson(separators=['a' * 9999, ':'])",
        "'%999999999d' % 1",
        "'%*d' % (999999999, 1)",
        "'{:999999999}'.format('a')",
        "'{:{}}'.format('a', 999999999)",
        "'%999999999d'|format(1)",
        "1.5|round(10**9, 'floor')",
        "(1).to_bytes(10**9)",
    ],
)
def test_an_operation_with_a_giant_result_is_refused(expression: str) -> None:
    with pytest.raises(TemplateTooComplex, match="an operation creates"):
        compiled(f"{{{{ {expression} }}}}")
    template = compiled(f"{{% if messages[-1].content == 'loop' %}}{{{{ {expression} }}}}{{% endif %}}")
    with pytest.raises(RequestError, match="an operation creates"):
        template.render(LOOP)


def test_a_text_of_many_references_to_a_long_one_is_refused() -> None:
    source = "{% set s = 'a' * 60000000 %}{{ s }}{{ s }}"
    with pytest.raises(TemplateTooComplex, match="a text or a list longer than"):
        compiled(source)


def test_products_and_powers_of_ordinary_size_work() -> None:
    source = "{{ '-' * 3 }}{{ 6 * 7 }}{{ 2 ** 10 }}{{ 1.5 * 2 }}{{ 7 % 4 }}"
    assert compiled(source).render(LOOP) == "---4210243.03"


def test_methods_and_filters_of_ordinary_size_work() -> None:
    source = (
        "{{ 'a'.ljust(3) }}|{{ 'a b'.replace(' ', '--') }}|{{ ', '.join(['x', 'y']) }}|"
        "{{ [1, 2]|join('-') }}|"
        "{{ '%s of 2024' % 5 }}|{{ '%05.1f' % 2 }}|{{ '{:>4}{}'.format(1, 2024) }}|{{ 1.25|round(1) }}|"
        "{{ 'a\nb'|indent(2) }}|{{ 'aXb'|replace('X', '') }}|{{ '%s'|format('f') }}"
    )
    expected = "a  |a--b|x, y|1-2|5 of 2024|002.0|   12024|1.2|a\n  b|ab|f"
    assert compiled(source).render(LOOP) == expected


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("'Name: {}'.format('a')", "Name: a"),
        ("'Cutoff: December 2023, {}'.format('a')", "Cutoff: December 2023, a"),
        ("'Cutoff: December 2023, %s' % 'a'", "Cutoff: December 2023, a"),
        ("'Cutoff: December 2023, %s'|format('a')", "Cutoff: December 2023, a"),
        ("""'{"name": "%s", "arguments": {}}' % 'f'""", '{"name": "f", "arguments": {}}'),
        ('\'{{"year": 2024, "n": {:>3}}}\'.format(1)', '{"year": 2024, "n":   1}'),
        ("('a' * 10000).replace('b', 'c' * 10000)|length", "10000"),
        ("'\n'.join(['a' * 10000] * 1000)|length", "10000999"),
        ("{'a': 1, 'b': 2}|join(d=', ')", "a, b"),
        ("[1]|tojson(indent=2, separators=[',', ':'])", "[\n  1\n]"),
    ],
)
def test_an_ordinary_operation_works_whatever_its_text_looks_like(expression: str, text: str) -> None:
    assert compiled(f"{{{{ {expression} }}}}").render(LOOP) == text


def test_a_conversation_that_takes_too_long_fails_alone() -> None:
    template = compiled(IF_ASKED)
    with pytest.raises(RequestError, match="too complex for the chat template") as caught:
        template.render(LOOP)
    assert caught.value.param == "messages"
    assert template.slow
    assert template.render([{"role": "user", "content": "Hi"}]) == "Hi"


def test_a_conversation_that_takes_too_long_for_an_event_loop_is_rendered_in_another_thread() -> None:
    template = compiled(IF_ASKED)

    async def render() -> None:
        with pytest.raises(SlowTemplate):
            template.render(LOOP)
        assert template.slow
        with pytest.raises(RequestError):
            await asyncio.to_thread(template.render, LOOP)

    asyncio.run(render())
