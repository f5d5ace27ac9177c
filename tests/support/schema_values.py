"""Random schemas, each with a strategy for values that satisfy it and that `docs/api.md` supports."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Case = tuple[Any, st.SearchStrategy[Any]]
"""A schema and a strategy for its values."""

NAMES = st.text('abcé "\\/\n_-0서', max_size=5)
SCALARS = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.sampled_from([0.5, -2.25]) | NAMES
CONSTANTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=4,
)
PATTERNS = {
    "^[a-c]{2,3}$": ["ab", "abc"],
    "b+": ["b", "xb\n", "a bb서"],
    "^(on|off)$": ["on", "off"],
    r"^\d+-\w$": ["0-a", "123-_"],
}
FORMATS = {
    "date": ["2024-02-28", "1999-12-31"],
    "date-time": ["2024-02-28T12:00:00Z", "1999-12-31T23:59:59.5+02:00"],
    "uuid": ["123e4567-e89b-42d3-a456-426614174000"],
    "email": ["a.b+c@mail.example.com"],
    "ipv4": ["0.0.0.0", "192.168.255.1"],
    "uri": ["https://example.com/a/b?x=1#top"],
}


def cases() -> st.SearchStrategy[Case]:
    """Generate schemas of any small depth."""
    leaves = st.one_of(_plain(), _texts(), _bounded(), st.lists(CONSTANTS, min_size=1, max_size=3).map(_enum))
    inner = st.recursive(
        leaves,
        lambda inner: (
            _arrays(inner)
            | _tuples(inner)
            | _objects(inner)
            | _maps(inner)
            | st.lists(inner, min_size=2, max_size=3).map(_any_of)
        ),
        max_leaves=5,
    )
    return inner | inner.map(_referred)


def _plain() -> st.SearchStrategy[Case]:
    return st.sampled_from(
        [
            ({"type": "null"}, st.none()),
            ({"type": "boolean"}, st.booleans()),
            ({"type": "integer"}, st.integers(-(10**17), 10**17)),
            ({"type": "number"}, st.integers(-1000, 1000) | st.sampled_from([0.125, -3.5, 1e22, 2.5e-07])),
            ({"type": "string"}, NAMES),
            ({"type": ["string", "null"]}, NAMES | st.none()),
            ({"type": "object"}, st.dictionaries(NAMES, SCALARS, max_size=3)),
            ({"type": "array"}, st.lists(SCALARS, max_size=3)),
            ({}, CONSTANTS),
        ]
    )


def _texts() -> st.SearchStrategy[Case]:
    patterns = [
        ({"type": "string", "pattern": each}, st.sampled_from(some)) for each, some in PATTERNS.items()
    ]
    formats = [({"type": "string", "format": each}, st.sampled_from(some)) for each, some in FORMATS.items()]
    return st.sampled_from(patterns + formats)


@st.composite
def _bounded(draw: st.DrawFn) -> Case:
    lower = draw(st.integers(-40, 40))
    upper = lower + draw(st.integers(1, 60))
    match draw(st.sampled_from(["string", "integer", "number"])):
        case "string":
            lower, upper = abs(lower) // 8, abs(lower) // 8 + upper - lower
            made = {"type": "string", "minLength": lower, "maxLength": upper}
            return made, st.text('ab"é서', min_size=lower, max_size=upper)
        case "integer":
            return {"type": "integer", "minimum": lower, "exclusiveMaximum": upper + 1}, st.integers(
                lower, upper
            )
    quarters = st.integers(4 * lower, 4 * upper).map(lambda number: number / 4)
    return {"type": "number", "minimum": lower, "maximum": upper}, quarters


def _enum(values: list[Any]) -> Case:
    schema = {"const": values[0]} if len(values) == 1 else {"enum": values}
    return schema, st.sampled_from(values)


@st.composite
def _arrays(draw: st.DrawFn, inner: st.SearchStrategy[Case]) -> Case:
    schema, values = draw(inner)
    lower = draw(st.integers(0, 2))
    upper = lower + draw(st.integers(0, 2))
    made = {"type": "array", "items": schema, "minItems": lower, "maxItems": upper}
    return made, st.lists(values, min_size=lower, max_size=upper)


@st.composite
def _tuples(draw: st.DrawFn, inner: st.SearchStrategy[Case]) -> Case:
    several = draw(st.lists(inner, min_size=1, max_size=3))
    made = {"type": "array", "prefixItems": [schema for schema, _ in several], "items": False}
    made["minItems"] = len(several)
    return made, st.tuples(*(values for _, values in several)).map(list)


@st.composite
def _objects(draw: st.DrawFn, inner: st.SearchStrategy[Case]) -> Case:
    properties = draw(st.dictionaries(NAMES, inner, min_size=1, max_size=3))
    required = draw(st.lists(st.sampled_from(list(properties)), unique=True))
    optional = [name for name in properties if name not in required]
    made = {"type": "object", "properties": {name: schema for name, (schema, _) in properties.items()}}
    whole = st.fixed_dictionaries({name: values for name, (_, values) in properties.items()})
    absent = st.lists(st.sampled_from(optional)) if optional else st.just([])
    some = st.builds(
        lambda value, absent: {name: value[name] for name in properties if name not in absent},
        whole,
        absent,
    )
    return {**made, "required": required}, some


def _maps(inner: st.SearchStrategy[Case]) -> st.SearchStrategy[Case]:
    return inner.map(
        lambda case: (
            {"type": "object", "additionalProperties": case[0]},
            st.dictionaries(NAMES, case[1], max_size=2),
        )
    )


def _any_of(several: list[Case]) -> Case:
    return {"anyOf": [schema for schema, _ in several]}, st.one_of([values for _, values in several])


def _referred(case: Case) -> Case:
    schema, values = case
    made = {"$defs": {"it": schema}, "type": "array", "items": {"$ref": "#/$defs/it"}, "maxItems": 2}
    return made, st.lists(values, max_size=2)
