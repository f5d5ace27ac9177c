"""Normalize a JSON schema into the subset that all grammar libraries enforce.

Each library silently ignores some keywords and rejects others. A normalized schema has only combinations
that all of them enforce or reject: each schema is a ``$ref``, an ``enum``, an ``anyOf``, or one ``type`` with
the keywords of that type. A normalized schema may be narrower than the original. It is wider only where a
keyword is ignored, which is noted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce
from itertools import product
from typing import Any
from urllib.parse import unquote

import msgspec

from fllm.errors import RequestError
from fllm.structured_output.json_schema.arrays import normalize_array
from fllm.structured_output.json_schema.disjointness import are_disjoint, find_tag
from fllm.structured_output.json_schema.formats import FORMATS, IMPOSSIBLE_FORMATS
from fllm.structured_output.json_schema.intersection import allowed_types, intersect
from fllm.structured_output.json_schema.keyword_values import constraining_keywords, is_schema
from fllm.structured_output.json_schema.keywords import (
    COMBINATORS,
    CONDITIONS,
    KEYWORDS_BY_TYPE,
    TYPES,
    UNEVALUATED,
    Schema,
    SchemaError,
    invalid,
    unsupported,
)
from fllm.structured_output.json_schema.negation import negated, without_conditions
from fllm.structured_output.json_schema.objects import closed, normalize_object
from fllm.structured_output.json_schema.patterns import plain_patterns
from fllm.structured_output.json_schema.recursion import check_not_infinitely_recursive
from fllm.structured_output.json_schema.typed_schemas import (
    any_of,
    normalize_enum,
    normalize_number,
    normalize_string,
    own_keywords,
)

MAX_NOTES = 20
"""Maximum number of lines about keywords that are ignored."""
MAX_SCHEMAS = 5000
"""Maximum number of subschemas, counted each time one is expanded."""
MAX_DEPTH = 100
MAX_ALTERNATIVES = 200
"""Maximum number of alternatives of one schema, after each ``anyOf`` in its ``allOf`` is multiplied out."""

Pointers = tuple[str, ...]


def normalize_schema(
    text: str, note: Callable[[str], None] = lambda _: None, *, lenient: bool = False
) -> str:
    """Return the JSON text of the normalized schema.

    ``note`` receives a line for each keyword that is ignored or narrows the answer much. Raise `RequestError`
    with the keyword and its place if the schema can't be enforced; if ``lenient``, ignore such a keyword.
    """
    try:
        root = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(f"the JSON schema is not valid JSON: {error}") from None
    if not is_schema(root):
        raise RequestError("the JSON schema is neither an object nor a boolean")
    try:
        result = _Normalizer(root, note, lenient).run()
        check_not_infinitely_recursive(result)
        return msgspec.json.encode(result).decode()
    except RecursionError:
        raise _too_large() from None
    except SchemaError as error:
        raise RequestError(error.message, code=error.code) from None


def _too_large() -> RequestError:
    return RequestError("the JSON schema is too large or nested too deeply", code="unsupported_schema")


class _Normalizer:
    """Normalizes a schema with the schemas within it. It is the `Subschemas` of the modules for one type."""

    def __init__(self, root: Any, note: Callable[[str], None], lenient: bool) -> None:
        self._root = root
        self._note = note
        self._noted: set[str] = set()
        self._lenient = lenient
        self._pointers = dict(_places(root, "#"))
        """JSON pointers of the schemas by their IDs."""
        self._named = dict(_identified(root, self._pointers))
        """JSON pointers of the schemas that have an ``$id`` or ``$anchor``."""
        self._place = "#"
        """The JSON pointer of the schema that is being normalized."""
        self._names: dict[tuple[str, str], str] = {}
        """Names of the definitions by JSON pointers, each with a property that is required, if any."""
        self._definitions: dict[str, Any] = {}
        self._count = 0
        self._depth = 0

    def run(self) -> dict[str, Any]:
        """Return the normalized root schema with its definitions."""
        result = self.normalize(self._root)
        pending = list(self._names)
        while pending:
            for pointer, required in pending:
                schema = self._resolve(pointer)
                schema = {"allOf": [schema, {"required": [required]}]} if required else schema
                self._definitions[self._names[pointer, required]] = self.normalize(schema)
            pending = [each for each, name in self._names.items() if name not in self._definitions]
        if result is None or any(each is None for each in self._definitions.values()):
            raise RequestError("the JSON schema allows no value", code="unsupported_schema")
        return result | ({"$defs": self._definitions} if self._definitions else {})

    def note(self, keyword: str, what: str) -> None:
        """Record, once, that a keyword is ignored or narrows the answer."""
        text = f"{keyword!r} in {self._place!r}: {what}"
        if text not in self._noted and len(self._noted) < MAX_NOTES:
            self._noted.add(text)
            self._note(text)

    def normalize(self, schema: Any) -> dict[str, Any] | None:
        """Return the normalized schema, or ``None`` if no value satisfies it."""
        self._count += 1
        self._depth += 1
        if self._count > MAX_SCHEMAS or self._depth > MAX_DEPTH:
            raise _too_large()
        outer, self._place = self._place, self._pointers.get(id(schema), self._place)
        try:
            return self._normalize_structure(schema)
        except SchemaError as error:
            if not self._lenient:
                raise error.at(self._place) from None
            self.note(error.keyword, f"ignored: {error.why}")
            return self.normalize(_without(schema, error.keyword))
        finally:
            self._depth -= 1
            self._place = outer

    def alternatives(self, schema: Any) -> list[dict[str, Any]]:
        """Return schemas without combinators, one of which must hold."""
        return self._alternatives(schema, ())

    def _normalize_structure(self, schema: Any) -> dict[str, Any] | None:
        """Keep a combinator that is the only keyword, so that recursive schemas are not expanded forever."""
        own = self._keywords(schema) if isinstance(schema, Mapping) else {}
        match own:
            case {"$ref": str(pointer)} if len(own) == 1:
                return self._reference(pointer)
            case {"allOf": [{"$ref": str(pointer), **more}, {"required": [str(tag)], **others}]} if (
                len(own) == 1 and not more and not others
            ):
                return self._reference(pointer, tag)
            case {"allOf": [only]} if len(own) == 1:
                return self.normalize(only)
            case {"anyOf": list(options)} if len(own) == 1:
                return self._normalize_options(options)
            case {"oneOf": list(options)} if len(own) == 1:
                return any_of(map(self.normalize, self._disjoint(options)))
        return any_of(self._normalize_by_type(each) for each in self._alternatives(schema, ()))

    def _normalize_options(self, options: list[Any]) -> dict[str, Any] | None:
        """Normalize the options of ``anyOf`` without those that can't be enforced, if others remain."""
        normalized: list[dict[str, Any] | None] = []
        refused = []
        for option in options:
            try:
                normalized.append(self.normalize(option))
            except SchemaError as error:
                if error.problem != "unsupported":
                    raise
                refused.append(error)
        if refused and not any(each is not None for each in normalized):
            raise refused[0]
        for each in refused:
            self.note("anyOf", f"without the option that is an {each.message}")
        return any_of(normalized)

    def _keywords(self, schema: Schema) -> dict[str, Any]:
        keywords = constraining_keywords(schema, self.note)
        for keyword in keywords.keys() & UNEVALUATED.keys():
            if conditions := keywords.keys() & {*CONDITIONS}:
                raise unsupported(keyword, f"not supported together with {min(conditions)!r}")
        return without_conditions(keywords, self._negate, self.note)

    def _alternatives(self, schema: Any, inside: Pointers) -> list[dict[str, Any]]:
        """Return schemas without combinators, one of which must hold.

        ``inside`` holds the pointers of the references that are being expanded.
        """
        self._count += 1
        if self._count > MAX_SCHEMAS:
            raise _too_large()
        if isinstance(schema, bool):
            return [{}] if schema else []
        own = self._keywords(schema)
        alternatives = [self._own_keywords(own)]
        if "allOf" in own:
            parts = [self._alternatives(part, inside) for part in own["allOf"]]
            alternatives = self._intersect_parts(alternatives, parts)
        if "$ref" in own:
            pointer = self._pointer(own["$ref"])
            if pointer in inside:
                raise invalid("$ref", f"{pointer!r} refers to itself")
            alternatives = self._intersect_all(
                alternatives, self._alternatives(self._resolve(pointer), (*inside, pointer))
            )
        for keyword in ("anyOf", "oneOf"):
            if keyword in own:
                parts = self._disjoint(own[keyword], inside) if keyword == "oneOf" else own[keyword]
                options = [each for option in parts for each in self._alternatives(option, inside)]
                alternatives = self._intersect_all(alternatives, options)
        for keyword, of_one_schema in UNEVALUATED.items():
            if keyword in own:
                alternatives = [{of_one_schema: own[keyword], **each} for each in alternatives]
        return alternatives

    def _own_keywords(self, own: Schema) -> dict[str, Any]:
        """Return the keywords but the combinators, with a list of values and a list of patterns."""
        keywords = {
            keyword: value for keyword, value in own.items() if keyword not in (*COMBINATORS, *UNEVALUATED)
        }
        named = keywords.pop("format", None)
        excluded = [keywords.pop("not")] if isinstance(keywords.get("not"), dict) else []
        if "pattern" in keywords:
            keywords["pattern"] = self._patterns(keywords["pattern"], named)
        elif named is not None and not keywords.keys() & {"enum", "const"}:
            if named in FORMATS:
                keywords["pattern"] = [{"pattern": f"^({FORMATS[named]})$"}]
            elif named in IMPOSSIBLE_FORMATS:
                raise unsupported("format", f"{named!r} can't be enforced")
            else:
                self.note("format", f"{named!r} is an annotation")
        for each in excluded:
            [negated_pattern, *more] = plain_patterns(each["pattern"])
            if more:
                raise unsupported("not", "look-around is not supported in a pattern that is negated")
            keywords["pattern"] = [*keywords.get("pattern", ()), {"not": negated_pattern}]
        if "const" in keywords:
            constant = keywords.pop("const")
            if "enum" in keywords:
                return intersect(keywords, {"enum": [constant]}) or {"enum": []}
            keywords["enum"] = [constant]
        return keywords

    def _patterns(self, pattern: str, named: str | None) -> list[dict[str, Any]]:
        """Return the patterns for a pattern; if it can't be expressed, that of the ``format``."""
        try:
            return plain_patterns(pattern)
        except SchemaError as error:
            if named not in FORMATS:
                raise
            self.note("pattern", f"the format {named!r} holds instead: {error.why}")
            return [{"pattern": f"^({FORMATS[named]})$"}]

    def _intersect_parts(
        self, own: list[dict[str, Any]], parts: list[list[dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """Return the schemas that satisfy all parts of ``allOf``.

        Zod and TypeBox write an intersection of objects as closed objects that exclude each other's
        properties, and mean an object with the properties of all.
        """
        result = reduce(self._intersect_all, parts, own)
        if result or not all(each.get("additionalProperties") is False for part in parts for each in part):
            return result
        opened = [[{**each, "additionalProperties": True} for each in part] for part in parts]
        if joined := reduce(self._intersect_all, opened, own):
            self.note("allOf", "the objects exclude each other's properties, so these are joined")
        return [{**each, "additionalProperties": False} for each in joined]

    def _intersect_all(self, a: list[dict[str, Any]], b: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if len(a) * len(b) > MAX_ALTERNATIVES:
            raise unsupported("anyOf", f"more than {MAX_ALTERNATIVES} combinations of options")
        both = (intersect(each, other) for each, other in product(a, b))
        return [each for each in both if each is not None]

    def _disjoint(self, options: list[Any], inside: Pointers = ()) -> list[Any]:
        """Return the options of ``oneOf``, narrowed so that no value satisfies two of them.

        A grammar can't express that exactly one option holds, but disjoint options imply it. Raise
        `RequestError` if two options may hold at once.
        """
        if len(options) > MAX_ALTERNATIVES:
            raise unsupported("oneOf", f"more than {MAX_ALTERNATIVES} options")
        expanded = [self._alternatives(option, inside) for option in options]
        pairs = [
            (index, other)
            for index, first in enumerate(expanded)
            for other, second in enumerate(expanded[:index])
            if not all(are_disjoint(one, two, self.alternatives) for one, two in product(first, second))
        ]
        if not pairs:
            return options
        if tag := find_tag(expanded, self.alternatives):
            return [{"allOf": [option, {"required": [tag]}]} for option in options]
        narrowed = list(options)
        for pair in pairs:
            if not all(self._are_told_apart(one, two) for one, two in product(*(expanded[i] for i in pair))):
                for index, other in (pair, pair[::-1]):
                    narrowed[index] = {"allOf": [narrowed[index], self._other_than(options[other])]}
        if not all(self._alternatives(option, inside) for option in narrowed):
            raise unsupported("oneOf", "two options may hold at once; use anyOf")
        return narrowed

    def _are_told_apart(self, a: Schema, b: Schema) -> bool:
        """Return whether no value that is generated for one of two schemas satisfies the other."""
        one, other = closed(_with_type(a)), closed(_with_type(b))
        return are_disjoint(one, b, self.alternatives) and are_disjoint(a, other, self.alternatives)

    def _other_than(self, option: Any) -> Any:
        """Return the negated option; nothing if it is an object, since the other values make no sense."""
        if any("object" in allowed_types(each) for each in self.alternatives(option)):
            return False
        return self._negate(option) or False

    def _negate(self, schema: Any) -> Any:
        return negated(schema, self._resolve_once_more)

    def _resolve_once_more(self, reference: str) -> Any:
        """Resolve a reference that is expanded, which counts as one more schema."""
        self._count += 1
        if self._count > MAX_SCHEMAS:
            raise _too_large()
        return self._resolve(reference)

    def _normalize_by_type(self, schema: dict[str, Any]) -> dict[str, Any] | None:
        if not schema:
            return {}
        if "enum" in schema:
            return normalize_enum(schema)
        typed = _with_type(schema)
        return any_of(
            self._normalize_typed(kind, own_keywords(typed, kind)) for kind in _distinct_types(typed)
        )

    def _normalize_typed(self, kind: str, own: dict[str, Any]) -> dict[str, Any] | None:
        match kind:
            case "string":
                return normalize_string(own)
            case "integer" | "number":
                return normalize_number(kind, own)
            case "array":
                return normalize_array(own, self)
            case "object":
                return normalize_object(own, self)
        if "not" not in own:
            return {"type": kind}
        return normalize_enum({"enum": [None] if kind == "null" else [True, False], "not": own["not"]})

    def _reference(self, reference: str, required: str = "") -> dict[str, Any]:
        name = self._names.setdefault((self._pointer(reference), required), f"d{len(self._names)}")
        return {"$ref": f"#/$defs/{name}"}

    def _pointer(self, reference: str) -> str:
        """Return the JSON pointer for a ``$ref``, which may also be an ``$id`` or ``$anchor``."""
        name, _, fragment = reference.partition("#")
        if name in self._named and fragment.startswith("/"):
            return f"{self._named[name]}{fragment}"
        reference = self._named.get(reference, reference)
        if not (reference == "#" or reference.startswith("#/")):
            raise unsupported("$ref", f"{reference!r} does not refer to the same schema, like '#/$defs/name'")
        return reference

    def _resolve(self, reference: str) -> Any:
        pointer, value = self._pointer(reference), self._root
        for part in unquote(pointer[1:]).split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            try:
                value = value[int(key)] if isinstance(value, list) else value[key]
            except (KeyError, IndexError, ValueError, TypeError):
                raise invalid("$ref", f"there is nothing at {pointer!r}") from None
        if not is_schema(value):
            raise invalid("$ref", f"the value at {pointer!r} is not a schema")
        return value


def _places(value: Any, pointer: str) -> Iterator[tuple[int, str]]:
    """Yield the ID and the JSON pointer of each object in a schema."""
    if isinstance(value, dict):
        yield id(value), pointer
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, each in children:
        step = str(key).replace("~", "~0").replace("/", "~1")
        yield from _places(each, f"{pointer}/{step}")


def _identified(value: Any, pointers: Mapping[int, str]) -> Iterator[tuple[str, str]]:
    """Yield the references by ``$id`` and ``$anchor`` in a schema, and the JSON pointers they stand for."""
    if isinstance(value, dict):
        for keyword, prefix in (("$id", ""), ("id", ""), ("$anchor", "#")):
            if isinstance(name := value.get(keyword), str):
                yield f"{prefix}{name}", pointers[id(value)]
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _identified(each, pointers)


def _without(schema: Any, keyword: str) -> Any:
    """Return a schema without a keyword that can't be enforced; any value if the keyword is elsewhere."""
    if not isinstance(schema, Mapping) or keyword not in schema:
        return {"type": "object"} if isinstance(schema, Mapping) and schema.get("type") == "object" else True
    rest = {name: value for name, value in schema.items() if name != keyword}
    if keyword == "oneOf" and "anyOf" not in rest:
        rest["anyOf"] = schema["oneOf"]
    return rest


def _with_type(schema: Schema) -> Schema:
    """Return the schema with a type: without one, those that its keywords constrain."""
    named = [name for name, words in KEYWORDS_BY_TYPE.items() if any(word in schema for word in words)]
    return {"type": named or list(TYPES), **schema}


def _distinct_types(schema: Schema) -> Iterable[str]:
    named = allowed_types(schema)
    return [name for name in named if name != "integer" or "number" not in named]
