"""Normalize a JSON schema into the subset that all grammar libraries enforce.

Each library silently ignores some keywords and rejects others. A normalized schema has only combinations
that all of them enforce: each schema is a ``$ref``, an ``enum``, an ``anyOf``, or one ``type`` with the
keywords of that type. A normalized schema may be narrower than the original, never wider: every value that
satisfies it satisfies the original.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any
from urllib.parse import unquote

import msgspec

from fllm.errors import RequestError
from fllm.structured_output.json_schema.disjointness import are_disjoint
from fllm.structured_output.json_schema.intersection import allowed_types, intersect
from fllm.structured_output.json_schema.keyword_values import constraining_keywords, is_schema
from fllm.structured_output.json_schema.keywords import (
    COMBINATORS,
    KEYWORDS_BY_TYPE,
    Schema,
    invalid,
    unsupported,
)
from fllm.structured_output.json_schema.recursion import check_not_infinitely_recursive
from fllm.structured_output.json_schema.typed_schemas import normalize_typed

MAX_SCHEMAS = 5000
"""Maximum number of subschemas, counted each time one is expanded."""
MAX_DEPTH = 100
MAX_ALTERNATIVES = 200
"""Maximum number of alternatives of one schema, after each ``anyOf`` in its ``allOf`` is multiplied out."""

Pointers = tuple[str, ...]


def normalize_schema(text: str) -> str:
    """Return the JSON text of the normalized schema.

    Raise `RequestError` with the keyword if the schema can't be enforced exactly.
    """
    try:
        root = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(f"the JSON schema is not valid JSON: {error}") from None
    if not is_schema(root):
        raise RequestError("the JSON schema is neither an object nor a boolean")
    normalizer = _Normalizer(root)
    try:
        result = normalizer.run()
        check_not_infinitely_recursive(result)
        return msgspec.json.encode(result).decode()
    except RecursionError:
        raise _too_large() from None


def _too_large() -> RequestError:
    return RequestError("the JSON schema is too large or nested too deeply", code="unsupported_schema")


class _Normalizer:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._names: dict[str, str] = {}
        """Names of the definitions by the JSON pointers that refer to them."""
        self._definitions: dict[str, Any] = {}
        self._count = 0
        self._depth = 0

    def run(self) -> dict[str, Any]:
        """Return the normalized root schema with its definitions."""
        result = self._normalize(self._root)
        pending = list(self._names)
        while pending:
            for pointer in pending:
                self._definitions[self._names[pointer]] = self._normalize(self._resolve(pointer))
            pending = [each for each, name in self._names.items() if name not in self._definitions]
        if result is None or any(each is None for each in self._definitions.values()):
            raise RequestError("the JSON schema allows no value", code="unsupported_schema")
        return result | ({"$defs": self._definitions} if self._definitions else {})

    def _normalize(self, schema: Any) -> dict[str, Any] | None:
        """Return the normalized schema, or ``None`` if no value satisfies it."""
        self._count += 1
        self._depth += 1
        if self._count > MAX_SCHEMAS or self._depth > MAX_DEPTH:
            raise _too_large()
        try:
            return self._normalize_structure(schema)
        finally:
            self._depth -= 1

    def _normalize_structure(self, schema: Any) -> dict[str, Any] | None:
        """Keep a combinator that is the only keyword, so that recursive schemas are not expanded forever."""
        own = constraining_keywords(schema) if isinstance(schema, Mapping) else {}
        match own:
            case {"$ref": str(pointer)} if len(own) == 1:
                return {"$ref": f"#/$defs/{self._name(pointer)}"}
            case {"allOf": [only]} if len(own) == 1:
                return self._normalize(only)
            case {"anyOf": list(options)} if len(own) == 1:
                return _any_of(map(self._normalize, options))
            case {"oneOf": list(options)} if len(own) == 1:
                self._check_disjoint(options)
                return _any_of(map(self._normalize, options))
        return _any_of(self._normalize_by_type(each) for each in self._alternatives(schema, ()))

    def _alternatives(self, schema: Any, inside: Pointers) -> list[dict[str, Any]]:
        """Return schemas without ``$ref``, ``allOf``, ``anyOf`` and ``oneOf``, one of which must hold.

        ``inside`` holds the pointers of the references that are being expanded.
        """
        self._count += 1
        if self._count > MAX_SCHEMAS:
            raise _too_large()
        if isinstance(schema, bool):
            return [{}] if schema else []
        own = constraining_keywords(schema)
        alternatives = [_own_keywords(own)]
        for part in own.get("allOf", ()):
            alternatives = self._intersect_all(alternatives, self._alternatives(part, inside))
        if (pointer := own.get("$ref")) is not None:
            if pointer in inside:
                raise invalid("$ref", f"{pointer!r} refers to itself")
            alternatives = self._intersect_all(
                alternatives, self._alternatives(self._resolve(pointer), (*inside, pointer))
            )
        for keyword in ("anyOf", "oneOf"):
            if keyword in own:
                if keyword == "oneOf":
                    self._check_disjoint(own[keyword], inside)
                options = [each for option in own[keyword] for each in self._alternatives(option, inside)]
                alternatives = self._intersect_all(alternatives, options)
        return alternatives

    def _intersect_all(self, a: list[dict[str, Any]], b: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if len(a) * len(b) > MAX_ALTERNATIVES:
            raise unsupported("anyOf", f"more than {MAX_ALTERNATIVES} combinations of options")
        both = (intersect(each, other) for each, other in product(a, b))
        return [each for each in both if each is not None]

    def _check_disjoint(self, options: list[Any], inside: Pointers = ()) -> None:
        """Raise `RequestError` if two options of ``oneOf`` may hold at once.

        A grammar can't express that exactly one option holds, but disjoint options imply it.
        """
        if len(options) > MAX_ALTERNATIVES:
            raise unsupported("oneOf", f"more than {MAX_ALTERNATIVES} options")
        expanded = [self._alternatives(option, inside) for option in options]
        for index, first in enumerate(expanded):
            for second in expanded[:index]:
                for one, other in product(first, second):
                    if not are_disjoint(one, other, self._unwrapped_alternatives):
                        raise unsupported("oneOf", "two options may hold at once; use anyOf")

    def _unwrapped_alternatives(self, schema: Any) -> list[dict[str, Any]]:
        return self._alternatives(schema, ())

    def _normalize_by_type(self, schema: dict[str, Any]) -> dict[str, Any] | None:
        if "type" not in schema and "enum" not in schema:
            named = [
                name
                for name, keywords in KEYWORDS_BY_TYPE.items()
                if any(word in schema for word in keywords)
            ]
            if not named:
                return {}
            schema = {**schema, "type": named}
        if "enum" in schema or len(allowed_types(schema)) == 1:
            return normalize_typed(schema, self._normalize)
        return _any_of(
            normalize_typed({**schema, "type": name}, self._normalize) for name in _distinct_types(schema)
        )

    def _name(self, pointer: str) -> str:
        return self._names.setdefault(pointer, f"d{len(self._names)}")

    def _resolve(self, pointer: str) -> Any:
        if not (pointer == "#" or pointer.startswith("#/")):
            raise unsupported("$ref", f"{pointer!r} does not refer to the same schema, like '#/$defs/name'")
        value = self._root
        for part in unquote(pointer[1:]).split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            try:
                value = value[int(key)] if isinstance(value, list) else value[key]
            except (KeyError, IndexError, ValueError, TypeError):
                raise invalid("$ref", f"there is nothing at {pointer!r}") from None
        if not is_schema(value):
            raise invalid("$ref", f"the value at {pointer!r} is not a schema")
        return value


def _own_keywords(own: Schema) -> dict[str, Any]:
    keywords = {keyword: value for keyword, value in own.items() if keyword not in COMBINATORS}
    if "const" in keywords:
        constant = keywords.pop("const")
        if "enum" in keywords:
            return intersect(keywords, {"enum": [constant]}) or {"enum": []}
        keywords["enum"] = [constant]
    return keywords


def _distinct_types(schema: Schema) -> Iterable[str]:
    named = allowed_types(schema)
    return [name for name in named if name != "integer" or "number" not in named]


def _any_of(options: Iterable[dict[str, Any] | None]) -> dict[str, Any] | None:
    satisfiable = [option for option in options if option is not None]
    if not satisfiable:
        return None
    if {} in satisfiable:
        return {}
    return satisfiable[0] if len(satisfiable) == 1 else {"anyOf": satisfiable}
