"""Hypothesis strategies for texts that satisfy a constraint."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from fllm.constraints import (
    AnyOf,
    Concat,
    Constraint,
    ConstString,
    Grammar,
    JsonSchema,
    Regex,
    Repeat,
    TextUntil,
    TriggeredTags,
)

PROSE = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["", " ", "\n", "Tokyo", "7", "null", "true", "<", "a = [1, 2]", '{"a": "b"}', "it's", "\\", '"""']
)


def texts(constraint: Constraint) -> st.SearchStrategy[str]:
    """Generate texts that satisfy a constraint, of moderate length."""
    match constraint:
        case ConstString(text=text):
            return st.just(text)
        case JsonSchema(schema=schema):
            root = json.loads(schema)
            return values(root, root).map(lambda value: json.dumps(value, ensure_ascii=False))
        case Regex(pattern=pattern):
            return st.from_regex(pattern, fullmatch=True).filter(lambda text: text.isprintable())
        case TextUntil(end=end, without=without):
            return prose(end, without).map(lambda text: text + end)
        case Concat(parts=parts):
            return st.tuples(*map(texts, parts)).map("".join)
        case AnyOf(options=options):
            return st.one_of([texts(option) for option in options])
        case Repeat(item=item, separator=separator, min=lower, max=upper):
            upper = lower + 2 if upper is None else upper
            return st.lists(texts(item), min_size=lower, max_size=upper).map(separator.join)
        case TriggeredTags() | Grammar():
            raise NotImplementedError


def prose(end: str, without: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Generate texts before an end; many contain parts of excluded texts and other tags."""
    tagged = st.lists(st.sampled_from([*without, end, "\n", "a", "<"]), max_size=3).map("".join)
    texts = PROSE | tagged if without else PROSE
    return texts.filter(lambda text: end not in text + end[:-1] and not any(each in text for each in without))


def values(schema: Any, root: Any) -> st.SearchStrategy[Any]:
    """Generate values of a schema of simple keywords; its references point to the root's definitions."""
    if "$ref" in schema:
        return values(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of([values(option, root) for option in schema["anyOf"]])
    match schema.get("type", ["null", "integer", "string"]):
        case list(types):
            return st.one_of([values({**schema, "type": each}, root) for each in types])
        case "array":
            return st.lists(values(schema.get("items", {}), root), max_size=2)
        case "object":
            members = {key: values(each, root) for key, each in schema.get("properties", {}).items()}
            required = {key: members.pop(key) for key in schema.get("required", ())}
            return st.fixed_dictionaries(required, optional=members)
        case "string":
            lower, upper = schema.get("minLength", 0), schema.get("maxLength")
            return SCALARS["string"].map(lambda text: text[:upper].ljust(lower, "a"))
        case scalar:
            return SCALARS[scalar]


SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "string": PROSE,
    "integer": st.integers(),
    "number": st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    "boolean": st.booleans(),
    "null": st.none(),
}
