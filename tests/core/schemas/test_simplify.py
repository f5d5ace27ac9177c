from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schema_corpus import OBEYED, REFUSED

from fllm.errors import RequestError
from fllm.schemas import simplify


@pytest.mark.parametrize(("schema", "keyword"), REFUSED, ids=lambda each: json.dumps(each)[:60])
def test_what_no_grammar_obeys_is_refused_by_its_keyword(schema: Any, keyword: str) -> None:
    with pytest.raises(RequestError, match=keyword.replace("$", r"\$")):
        simplify(json.dumps(schema))


@pytest.mark.parametrize("schema", OBEYED, ids=lambda schema: json.dumps(schema)[:60])
def test_a_simplified_schema_is_simple_already(schema: Any) -> None:
    once = simplify(json.dumps(schema))
    assert simplify(once) == simplify(simplify(once))


HOSTILE = {
    "deep": '{"items":' * 10_000 + "{}" + "}" * 10_000,
    "deep enough to parse": '{"items":' * 500 + "{}" + "}" * 500,
    "many options": json.dumps({"allOf": [{"anyOf": [{"minimum": n}, {"maximum": -n}]} for n in range(40)]}),
    "references that double": json.dumps(
        {
            "$ref": "#/$defs/d0",
            "$defs": {
                **{
                    f"d{n}": {
                        "allOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}],
                        "type": "object",
                    }
                    for n in range(30)
                },
                "d30": {},
            },
        }
    ),
    "a circle": json.dumps(
        {
            "$defs": {
                "a": {"$ref": "#/$defs/b", "type": "string"},
                "b": {"$ref": "#/$defs/a", "type": "string"},
            },
            "$ref": "#/$defs/a",
        }
    ),
    "a hundred thousand values": json.dumps({"enum": [f"v{n}" for n in range(100_000)]}),
    "a long string": '{"minLength": 1000000000}',
    "many numbers": json.dumps({"oneOf": [{"const": n} for n in range(3000)]}),
    "not JSON": "{",
    "not a schema": '"string"',
    "keywords of wrong types": '{"properties": 3}',
    "no list": '{"anyOf": 3}',
    "no text": '{"pattern": 3}',
}


@pytest.mark.parametrize("schema", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_schema_is_refused(schema: str) -> None:
    with pytest.raises(RequestError):
        simplify(schema)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 2000)
    | st.floats(allow_nan=False)
    | st.sampled_from(["a", "string", "#"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "properties",
                    "required",
                    "items",
                    "anyOf",
                    "allOf",
                    "$ref",
                    "enum",
                    "minimum",
                    "maxItems",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=300)
@given(VALUES)
def test_anything_is_either_simplified_or_refused(value: Any) -> None:
    with contextlib.suppress(RequestError):
        simplify(json.dumps(value))
