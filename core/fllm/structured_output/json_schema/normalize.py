"""A JSON schema in fewer words.

Libraries that make grammars of schemas each ignore other keywords in silence, or refuse others. What comes
out of here has only combinations that all of them obey: each schema is a ``$ref``, an ``enum``, an ``anyOf``,
or says one ``type`` with keywords about it. Where a schema leaves something open, it may come out narrower,
never wider: what obeys it obeys the given schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any
from urllib.parse import unquote

import msgspec

from fllm.errors import RequestError
from fllm.structured_output.json_schema.disjointness import distinct
from fllm.structured_output.json_schema.intersection import merged, types
from fllm.structured_output.json_schema.keyword_values import constraining, is_schema
from fllm.structured_output.json_schema.keywords import ABOUT, Schema, refuse
from fllm.structured_output.json_schema.recursion import check_finite
from fllm.structured_output.json_schema.typed_schemas import simple_value

MAX_SCHEMAS = 5000
MAX_DEPTH = 100
MAX_ALTERNATIVES = 200
"""Of one schema, after all ``anyOf`` in its ``allOf`` are multiplied out."""

Path = tuple[str, ...]


def normalize_schema(text: str) -> str:
    """The JSON text of a schema, simplified.

    Raises `RequestError`, which names the keyword, for what can't be obeyed to the letter.
    """
    try:
        root = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(f"the JSON schema can't be read: {error}") from None
    if not is_schema(root):
        raise RequestError("the JSON schema is not one: it is neither an object nor a boolean")
    simplifier = _Simplifier(root)
    try:
        result = simplifier.run()
        check_finite(result)
        return msgspec.json.encode(result).decode()
    except RecursionError:
        raise _too_large() from None


def _too_large() -> RequestError:
    return RequestError("the JSON schema is too large, or nested too deep", code="unsupported_schema")


class _Simplifier:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._names: dict[str, str] = {}
        """Of the definitions, by what refers to them."""
        self._definitions: dict[str, Any] = {}
        self._count = 0
        self._depth = 0

    def run(self) -> dict[str, Any]:
        """The whole schema."""
        result = self._simple(self._root)
        pending = list(self._names)
        while pending:
            for pointer in pending:
                self._definitions[self._names[pointer]] = self._simple(self._resolve(pointer))
            pending = [each for each, name in self._names.items() if name not in self._definitions]
        if result is None or any(each is None for each in self._definitions.values()):
            raise RequestError("the JSON schema allows no value", code="unsupported_schema")
        return result | ({"$defs": self._definitions} if self._definitions else {})

    def _simple(self, schema: Any) -> dict[str, Any] | None:
        """``None`` for one that allows nothing."""
        self._count += 1
        self._depth += 1
        if self._count > MAX_SCHEMAS or self._depth > MAX_DEPTH:
            raise _too_large()
        try:
            return self._reference_or_choice(schema)
        finally:
            self._depth -= 1

    def _reference_or_choice(self, schema: Any) -> dict[str, Any] | None:
        """What stands alone is kept as it is, or recursive schemas would never end."""
        own = constraining(schema) if isinstance(schema, Mapping) else {}
        match own:
            case {"$ref": str(pointer)} if len(own) == 1:
                return {"$ref": f"#/$defs/{self._name(pointer)}"}
            case {"allOf": [only]} if len(own) == 1:
                return self._simple(only)
            case {"anyOf": list(options)} if len(own) == 1:
                return _any_of(map(self._simple, options))
            case {"oneOf": list(options)} if len(own) == 1:
                self._check_distinct(options)
                return _any_of(map(self._simple, options))
        return _any_of(self._by_type(each) for each in self._alternatives(schema, ()))

    def _alternatives(self, schema: Any, inside: Path) -> list[dict[str, Any]]:
        """Schemas without ``$ref``, ``allOf``, ``anyOf``, ``oneOf``, of which one must hold."""
        self._count += 1
        if self._count > MAX_SCHEMAS:
            raise _too_large()
        if isinstance(schema, bool):
            return [{}] if schema else []
        own = constraining(schema)
        found = [_plain(own)]
        for part in own.get("allOf", ()):
            found = self._both(found, self._alternatives(part, inside))
        if (pointer := own.get("$ref")) is not None:
            if pointer in inside:
                raise refuse("$ref", f"{pointer!r} refers to itself in a circle")
            found = self._both(found, self._alternatives(self._resolve(pointer), (*inside, pointer)))
        for keyword in ("anyOf", "oneOf"):
            if keyword in own:
                if keyword == "oneOf":
                    self._check_distinct(own[keyword], inside)
                options = [each for option in own[keyword] for each in self._alternatives(option, inside)]
                found = self._both(found, options)
        return found

    def _both(self, a: list[dict[str, Any]], b: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if len(a) * len(b) > MAX_ALTERNATIVES:
            raise refuse("anyOf", f"there are more than {MAX_ALTERNATIVES} combinations of options")
        both = (merged(each, other) for each, other in product(a, b))
        return [each for each in both if each is not None]

    def _check_distinct(self, options: list[Any], inside: Path = ()) -> None:
        """``oneOf`` asks that exactly one holds, which a grammar can't; where two can't hold, it needn't."""
        if len(options) > MAX_ALTERNATIVES:
            raise refuse("oneOf", f"it has more than {MAX_ALTERNATIVES} options")
        each = [self._alternatives(option, inside) for option in options]
        for at, first in enumerate(each):
            for second in each[:at]:
                for one, other in product(first, second):
                    if not distinct(one, other, self._distinct_alternatives):
                        raise refuse("oneOf", "two of its options may hold at once; use anyOf")

    def _distinct_alternatives(self, schema: Any) -> list[dict[str, Any]]:
        return self._alternatives(schema, ())

    def _by_type(self, schema: dict[str, Any]) -> dict[str, Any] | None:
        if "type" not in schema and "enum" not in schema:
            named = [name for name, keywords in ABOUT.items() if any(word in schema for word in keywords)]
            if not named:
                return {}
            schema = {**schema, "type": named}
        if "enum" in schema or len(types(schema)) == 1:
            return simple_value(schema, self._simple)
        return _any_of(simple_value({**schema, "type": name}, self._simple) for name in _widest(schema))

    def _name(self, pointer: str) -> str:
        return self._names.setdefault(pointer, f"d{len(self._names)}")

    def _resolve(self, pointer: str) -> Any:
        if not (pointer == "#" or pointer.startswith("#/")):
            raise refuse("$ref", f"{pointer!r} is not a place in the same schema, such as '#/$defs/name'")
        found = self._root
        for part in unquote(pointer[1:]).split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            try:
                found = found[int(key)] if isinstance(found, list) else found[key]
            except (KeyError, IndexError, ValueError, TypeError):
                raise refuse("$ref", f"there is nothing at {pointer!r}") from None
        if not is_schema(found):
            raise refuse("$ref", f"what stands at {pointer!r} is not a schema")
        return found


def _plain(own: Schema) -> dict[str, Any]:
    plain = {keyword: value for keyword, value in own.items() if keyword not in ("allOf", "anyOf", "oneOf")}
    plain.pop("$ref", None)
    if "const" in plain:
        constant = plain.pop("const")
        if "enum" in plain:
            return merged(plain, {"enum": [constant]}) or {"enum": []}
        plain["enum"] = [constant]
    return plain


def _widest(schema: Schema) -> Iterable[str]:
    named = types(schema)
    return [name for name in named if name != "integer" or "number" not in named]


def _any_of(options: Iterable[dict[str, Any] | None]) -> dict[str, Any] | None:
    found = [option for option in options if option is not None]
    if not found:
        return None
    if {} in found:
        return {}
    return found[0] if len(found) == 1 else {"anyOf": found}
