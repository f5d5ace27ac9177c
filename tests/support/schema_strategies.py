"""Hypothesis strategies for arbitrary JSON and for damaged JSON schemas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st
from support.schema_corpus import SUPPORTED

from fllm.structured_output.json_schema.keywords import COMBINATORS, KEYWORDS_BY_TYPE, TYPES

KEYWORDS = [
    *COMBINATORS,
    "type",
    "enum",
    "const",
    "$defs",
    *(word for words in KEYWORDS_BY_TYPE.values() for word in words),
]


def anything() -> st.SearchStrategy[Any]:
    """Generate any JSON value; many resemble schemas."""
    texts = (
        st.sampled_from(["a", "#", "#/$defs/a", "#/properties", "^a(b|", "[a-c]{2,}", "date", *TYPES])
        | st.text()
    )
    numbers = st.integers(-3, 2000) | st.integers() | st.floats(allow_nan=False)
    return st.recursive(
        st.none() | st.booleans() | numbers | texts,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=4)
            | st.dictionaries(texts, inner, max_size=2)
        ),
        max_leaves=15,
    )


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """Generate a schema of the corpus with some parts replaced."""
    schema = draw(st.sampled_from(SUPPORTED))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(_paths(schema))))
        schema = _replace(schema, path, draw(anything() | st.sampled_from(SUPPORTED)))
    return schema


def _paths(value: Any) -> Iterator[tuple[Any, ...]]:
    yield ()
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from ((key, *path) for path in _paths(each))


def _replace(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = _replace(copied[path[0]], path[1:], new)
    return copied
