"""Options of a plugin, a backend, a placement or a drafter: a Struct that declares them, and given values.

::

    class AcmeOptions(Struct, frozen=True, kw_only=True):
        cores: Annotated[int, Meta(ge=1, description="number of cores")] = 4
        token: Annotated[str, Meta(description="access token", extra={"secret": True})] = ""
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, inspect

from fllm.containment import mapped
from fllm.errors import ConfigError, format_error

S = TypeVar("S", bound=Struct)

_PATH = re.compile(r"`\$\.(\w+)|field `(\w+)`$")
_WORDS = {"string": "text", "boolean": "true or false", "integer": "integer", "number": "number"}
_FORMATS = {
    "date": "date",
    "time": "time",
    "date-time": "date and time",
    "duration": "duration, such as PT5S",
    "decimal": "decimal number",
    "uuid": "UUID",
    "base64": "base64",
}
_NESTED = ("list of ", "table")
HIDDEN = "(secret)"
"""What is shown instead of the value of a secret."""


class Option(Struct, frozen=True, omit_defaults=True):
    """One field of an options Struct, described for users."""

    name: str
    type: str
    default: Any
    required: bool
    summary: str
    """The ``description`` of its `msgspec.Meta`."""
    secret: bool = False
    """Whether its value is never shown: ``Meta(extra={"secret": True})``."""

    @property
    def is_nested(self) -> bool:
        """Whether its values are lists or tables, which are JSON where a value is text."""
        return any(each.startswith(_NESTED) for each in self.type.split(" or "))


class InvalidOption(ConfigError):
    """An option is unknown, missing or has an invalid value."""

    def __init__(self, message: str, *, is_missing: bool = False) -> None:
        super().__init__(message)
        self.is_missing = is_missing


def backend_options(given: Mapping[str, str], kind: type[S]) -> S:
    """Return the options. Raise `ConfigError` for an undeclared name or a value of another type."""
    return read_options(given, kind, "--backend-option {}".format)


def placement_options(given: Mapping[str, str], kind: type[S]) -> S:
    """Return the options. Raise `ConfigError` for an undeclared name or a value of another type."""
    return read_options(given, kind, "--placement-option {}".format)


def drafter_options(given: Mapping[str, Any], kind: type[S]) -> S:
    """Return the options. Raise `ConfigError` for an undeclared name or a value of another type."""
    return read_options(given, kind, "--speculative-config {}".format)


def read_options(given: Mapping[str, Any], kind: type[S], place: Callable[[str], str]) -> S:
    """Return the options. Raise `InvalidOption` for an undeclared name or a value of another type.

    Text stands for numbers, too, and JSON text for lists and tables. ``place`` returns where a name is set,
    for messages; of the name ``""``, where all are.
    """
    options = {option.name: option for option in options_of(kind)}
    for name in given:
        if name not in options:
            raise InvalidOption(_unknown(place(name), name, list(options)))
    values = {name: _decoded(value, options[name]) for name, value in given.items()}
    try:
        with mapped(
            lambda error: InvalidOption(f"{place('').strip()}: {format_error(error)}"),
            passing=(msgspec.ValidationError,),
        ):
            read = msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        path = _PATH.search(str(error))
        if path is None:  # of the Struct's own __post_init__
            raise InvalidOption(f"{place('').strip()}: {error}") from error
        option = options.get(path[1] or path[2])
        if option is None:  # a field of a nested Struct
            raise InvalidOption(f"{place('').strip()}: {error}") from error
        detail = str(error) if option.is_nested and not option.secret else ""
        raise _wrong(place(option.name), option, given, detail) from error
    fields = dict(zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True))
    for name, value in values.items():
        if (known := _misnamed(value, getattr(read, fields[name]))) is not None:
            detail = f"a field is none of {', '.join(known)}"
            raise _wrong(place(name), options[name], given, detail)
    return read


def _misnamed(given: Any, read: Any) -> Sequence[str] | None:
    """Return the names of the fields of a nested Struct for which a table with another name is given."""
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(read, Struct) and isinstance(given, Mapping):
        names = dict(zip(read.__struct_encode_fields__, read.__struct_fields__, strict=True))
        if not given.keys() <= {*names, read.__struct_config__.tag_field}:
            return [*names]
        inner = ((value, getattr(read, names[key])) for key, value in given.items() if key in names)
    elif isinstance(read, Mapping) and isinstance(given, Mapping):
        inner = zip(given.values(), read.values(), strict=False)
    elif isinstance(read, list | tuple) and isinstance(given, list):
        inner = zip(given, read, strict=False)
    return next((found for each in inner if (found := _misnamed(*each)) is not None), None)


def _decoded(value: Any, option: Option) -> Any:
    """Return the value that JSON text of a list or a table stands for; return other values as they are."""
    if isinstance(value, str) and option.is_nested and value.lstrip().startswith(("[", "{")):
        try:
            return msgspec.json.decode(value)
        except msgspec.DecodeError:
            return value
    return value


def options_of(kind: type[Struct]) -> list[Option]:
    """Return the fields of an options Struct, in order."""
    return list(_describe(kind))


@cache
def _describe(kind: type[Struct]) -> tuple[Option, ...]:
    (schema,), components = msgspec.json.schema_components([kind], ref_template="{name}")
    described = components[schema["$ref"]]
    if "properties" not in described:
        raise TypeError(f"{kind.__name__} is not a table: it is array_like")
    tag = kind.__struct_config__.tag_field
    required = described.get("required", ())
    secrets = _secrets(kind)
    return tuple(
        Option(
            name,
            _type(each, components),
            HIDDEN if name in secrets and each.get("default") else each.get("default"),
            name in required,
            _summary(each),
            name in secrets,
        )
        for name, each in described["properties"].items()
        if name != tag
    )


def _secrets(kind: type[Struct]) -> set[str]:
    """Return the names of the fields that are secret, or that hold a Struct with such a field."""
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    return {field.encode_name for field in described.fields if _is_secret(field.type, (described,))}


def _is_secret(described: inspect.Type, seen: tuple[inspect.Type, ...]) -> bool:
    if isinstance(described, inspect.Metadata):
        extra = described.extra or {}
        return bool(extra.get("secret")) or _is_secret(described.type, seen)
    if any(described is each for each in seen):  # a recursive type
        return False
    seen = (*seen, described)
    inner: list[inspect.Type] = []
    match described:
        case inspect.UnionType(types=types):
            inner += types
        case inspect.StructType(fields=fields):
            inner += [field.type for field in fields]
        case inspect.DictType(key_type=key, value_type=value):
            inner += [key, value]
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            inner += [item]
        case inspect.TupleType(item_types=items):
            inner += items
        case _:
            pass
    return any(_is_secret(each, seen) for each in inner)


def _unknown(place: str, name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{place}: there is no such option{hint} (options: {', '.join(names) or 'none'})"


def _wrong(place: str, option: Option, given: Mapping[str, Any], detail: str) -> InvalidOption:
    about = f" ({option.summary})" if option.summary else ""
    if option.name not in given:
        message = f"{place}=...: this option is required: {option.type}{about}"
        return InvalidOption(message, is_missing=True)
    value = "" if option.secret else f"={given[option.name]!r}"
    detail = f"; {detail}" if detail else ""
    as_json = ", as JSON" if option.is_nested and isinstance(given[option.name], str) else ""
    return InvalidOption(f"{place}{value}: invalid value; expected {option.type}{as_json}{about}{detail}")


def _summary(schema: Mapping[str, Any]) -> str:
    """Return the description of the field, or of its type other than ``None``, which carries the limits."""
    descriptions = (each.get("description") for each in (schema, *schema.get("anyOf", ())))
    return next(filter(None, descriptions), "")


def _type(schema: Mapping[str, Any], components: Mapping[str, Any]) -> str:
    """Return the valid values of a field, in words."""
    schema = {**components.get(schema.get("$ref", ""), {}), **schema}
    if "anyOf" in schema:
        return " or ".join(_type(each, components) for each in schema["anyOf"] if each != {"type": "null"})
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"] if value is not None)
    if schema.get("type") == "array":
        items = _type(schema["items"], components) if schema.get("items") else "values"
        return ", ".join([f"list of {items}", *_limits(schema, "Items", " of them")])
    if schema.get("type") == "object":
        return "table"
    kind = _FORMATS.get(schema.get("format", schema.get("contentEncoding", "")))
    words = [kind or _WORDS.get(schema.get("type", ""), "text"), *_limits(schema, "Length", " characters")]
    if "pattern" in schema and not schema.get("description"):  # words say more
        words.append(f"matching {schema['pattern']}")
    for limit, word in (("minimum", "at least"), ("exclusiveMinimum", "above")):
        words += [f"{word} {schema[limit]}"] if limit in schema else []
    for limit, word in (("maximum", "at most"), ("exclusiveMaximum", "below")):
        words += [f"{word} {schema[limit]}"] if limit in schema else []
    return ", ".join(words)


def _limits(schema: Mapping[str, Any], of: str, unit: str) -> list[str]:
    """Return the limits of a length, in words."""
    limits = ((f"min{of}", "at least"), (f"max{of}", "at most"))
    return [f"{word} {schema[limit]}{unit}" for limit, word in limits if limit in schema]
