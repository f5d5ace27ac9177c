"""Options of a backend or a placement: a Struct that its entry names, set by ``--backend-option KEY=VALUE``.

::

    class AcmeOptions(Struct, frozen=True, kw_only=True):
        cores: Annotated[int, Meta(ge=1, description="number of cores")] = 4
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from fllm.errors import ConfigError

S = TypeVar("S", bound=Struct)

_PATH = re.compile(r"`\$\.(\w+)`|field `(\w+)`")
_WORDS = {"string": "text", "boolean": "true or false", "integer": "integer", "number": "number"}


class Option(Struct, frozen=True):
    """One field of an options Struct, described for users."""

    name: str
    type: str
    default: Any
    required: bool
    summary: str
    """The ``description`` of its `msgspec.Meta`."""


def backend_options(given: Mapping[str, str], kind: type[S]) -> S:
    """Return the options. Raise `ConfigError` for an undeclared name or a value of another type."""
    return _read("--backend-option", given, kind)


def placement_options(given: Mapping[str, str], kind: type[S]) -> S:
    """Return the options. Raise `ConfigError` for an undeclared name or a value of another type."""
    return _read("--placement-option", given, kind)


def _read(flag: str, given: Mapping[str, str], kind: type[S]) -> S:
    options = {option.name: option for option in options_of(kind)}
    for name in given:
        if name not in options:
            raise ConfigError(_unknown(flag, name, list(options)))
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        path = _PATH.search(str(error))
        if path is None:  # of the Struct's own __post_init__
            raise ConfigError(f"{flag}: {error}") from error
        raise ConfigError(_wrong(flag, options[path[1] or path[2]], given)) from error


def options_of(kind: type[Struct]) -> list[Option]:
    """Return the fields of an options Struct, in order."""
    (schema,), components = msgspec.json.schema_components([kind], ref_template="{name}")
    described = components[schema["$ref"]]
    required = described.get("required", ())
    return [
        Option(name, _type(each), each.get("default"), name in required, _summary(each))
        for name, each in described["properties"].items()
    ]


def _unknown(flag: str, name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{flag} {name!r}: there is no such option{hint} (options: {', '.join(names) or 'none'})"


def _wrong(flag: str, option: Option, given: Mapping[str, str]) -> str:
    about = f" ({option.summary})" if option.summary else ""
    if option.name not in given:
        return f"{flag} {option.name}=...: this option is required: {option.type}{about}"
    return f"{flag} {option.name}={given[option.name]!r}: invalid value; expected {option.type}{about}"


def _summary(schema: Mapping[str, Any]) -> str:
    """Return the description of the field, or of its type other than ``None``, which carries the limits."""
    descriptions = (each.get("description") for each in (schema, *schema.get("anyOf", ())))
    return next(filter(None, descriptions), "")


def _type(schema: Mapping[str, Any]) -> str:
    """Return the valid values of a field, in words."""
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"] if each != {"type": "null"})
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"] if value is not None)
    words = [_WORDS.get(schema.get("type", ""), "text")]
    for limit, word in (("minimum", "at least"), ("exclusiveMinimum", "above")):
        words += [f"{word} {schema[limit]}"] if limit in schema else []
    for limit, word in (("maximum", "at most"), ("exclusiveMaximum", "below")):
        words += [f"{word} {schema[limit]}"] if limit in schema else []
    return ", ".join(words)
