"""Tools that some templates reject are adapted, and no other."""

from __future__ import annotations

from typing import Any

from fllm.chat import ChatTemplate

HELLO = [{"role": "user", "content": "Hello"}]
DESCRIBED = (
    "{% for t in tools or [] %}{{ t.function.name + ': ' + t.function.description }}{% endfor %}"
    "{{ messages[0].content }}"
)
ONE_TYPE = (
    "{% for t in tools or [] %}{{ t.function.name }}{% for p in t.function.parameters.properties.values() %}"
    "{{ ' ' + p.type }}{% endfor %}{% endfor %}{{ messages[0].content }}"
)
AS_SENT = "{{ (tools or []) | map(attribute='function') | list | tojson }}{{ messages[0].content }}"


def tool(**fields: Any) -> dict[str, Any]:
    function = {"name": "f", "parameters": {"type": "object", "properties": {}}, **fields}
    return {"type": "function", "function": function}


def render(source: str, *tools: dict[str, Any]) -> str:
    return ChatTemplate.compile({"default": source}, special_tokens={}).render(HELLO, tools=tools)


def test_a_description_is_empty_where_the_template_needs_one() -> None:
    assert render(DESCRIBED, tool(), tool(description=None), tool(description="d")) == "f: f: f: dHello"


def test_one_of_several_types_is_shown_where_the_template_takes_one() -> None:
    properties = {"a": {"type": ["null", "string"]}, "b": {"type": "integer"}, "c": {"type": ["null"]}}
    assert render(ONE_TYPE, tool(parameters={"properties": properties})) == "f string integer nullHello"


def test_what_looks_like_types_in_examples_stays() -> None:
    source = ONE_TYPE.replace("p.type }}", "p.type }}{{ p.enum }}")
    properties = {"a": {"type": ["string", "null"], "enum": [{"type": ["a"]}]}}
    assert "[{'type': ['a']}]" in render(source, tool(parameters={"properties": properties}))


def test_deep_schemas_are_adapted_to_a_limit() -> None:
    schema: Any = {"type": ["string", "null"]}
    for _ in range(400):
        schema = {"type": "object", "properties": {"a": schema}}
    assert render(ONE_TYPE, tool(parameters=schema)) == "f objectHello"


def test_other_templates_get_tools_as_they_were_sent() -> None:
    text = render(AS_SENT, tool(parameters={"type": ["object", "null"]}))
    assert text == '[{"name": "f", "parameters": {"type": ["object", "null"]}}]Hello'
