"""JSON schemas like those of the JSON-Schema-Test-Suite: supported ones, and unsupported ones."""

from __future__ import annotations

from typing import Any


def obj(props: dict[str, Any], req: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """Return the schema of an object that requires all of its properties, or those in ``req``."""
    return {"type": "object", "properties": props, "required": list(props) if req is None else req, **more}


STR: dict[str, Any] = {"type": "string"}
INT: dict[str, Any] = {"type": "integer"}
NUM: dict[str, Any] = {"type": "number"}
BOOL: dict[str, Any] = {"type": "boolean"}
SUPPORTED: list[Any] = [
    {},
    True,
    STR,
    INT,
    NUM,
    BOOL,
    {"type": "null"},
    {"type": "object"},
    {"type": "array"},
    {"type": ["string", "null"]},
    {"type": ["integer", "boolean", "array"]},
    {"type": ["number", "integer"]},
    {"enum": ["a", 'b"c', 1, None, {"x": [1, 2.5]}, "é\n"]},
    {"const": "x"},
    {"const": {"a": [1, {"b": None}]}},
    {"enum": [1, "1", True], "type": "string"},
    {"type": "string", "enum": ["red", "green"]},
    {"type": "string", "minLength": 3},
    {"type": "string", "maxLength": 4},
    {"type": "string", "minLength": 2, "maxLength": 5},
    {"type": "string", "minLength": 0, "maxLength": 0},
    {"type": "string", "maxLength": 100000},
    *[
        {"type": "string", "format": f}
        for f in ["date", "time", "date-time", "duration", "uuid", "email", "ipv4", "ipv6", "hostname", "uri"]
    ],
    *[
        {"type": "string", "pattern": p}
        for p in [
            "^a.*b$",
            "ab",
            "^[^a]+$",
            "^\\d{3}-\\d{4}$",
            "^(foo|bar)+$",
            "[A-Z]{2}",
            "^\\w+@\\w+\\.com$",
            "^\\s*$",
            '^[\\"\\\\]+$',
            "^.{3,5}$",
            "^é+$",
            "^[\\u00e0-\\u00ff]{2}$",
            "^(a|b)*abb$",
            "x?y*z+",
            "^\\STR+\\.$",
            "a|^b$",
            "^$",
            "^[\\x00-\\x7f]{4}$",
            "^\\D\\W$",
            "^[\\w.-]+$",
            "/",
            "^a{2,}$",
        ]
    ],
    {"type": "integer", "minimum": -3, "maximum": 120},
    {"type": "integer", "exclusiveMinimum": 0},
    {"type": "integer", "exclusiveMaximum": 5},
    {"type": "integer", "minimum": 10, "exclusiveMaximum": 12},
    {"type": "integer", "minimum": 1.5, "maximum": 3.5},
    {"type": "integer", "minimum": -1000000, "maximum": -999},
    {"type": "number", "minimum": 0, "maximum": 1},
    {"type": "number", "exclusiveMinimum": 0.5, "maximum": 3},
    {"type": "number", "minimum": -2.25, "exclusiveMaximum": -1.125},
    {"type": "number", "exclusiveMinimum": 0},
    {"type": "number", "maximum": -0.001},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "number", "minimum": 1e-7},
    {"minimum": 3},
    {"type": "integer", "multipleOf": 3},
    {"type": "integer", "multipleOf": 7},
    {"type": "integer", "multipleOf": 10},
    {"type": "array", "items": INT},
    {"type": "array", "items": STR, "minItems": 2},
    {"type": "array", "items": NUM, "maxItems": 2},
    {"type": "array", "items": BOOL, "minItems": 1, "maxItems": 3},
    {"type": "array", "minItems": 3, "maxItems": 3, "items": {"enum": ["a", "b"]}},
    {"type": "array", "prefixItems": [INT, STR]},
    {"type": "array", "prefixItems": [INT, STR], "items": False},
    {"type": "array", "prefixItems": [INT, STR], "items": BOOL, "minItems": 3},
    {"type": "array", "prefixItems": [INT, STR], "minItems": 2, "maxItems": 2},
    {"type": "array", "prefixItems": [INT, STR], "maxItems": 1},
    {"type": "array", "prefixItems": [INT, STR], "items": False, "minItems": 1},
    {"type": "array", "items": False},
    {"type": "array", "maxItems": 0},
    {"type": "array", "items": INT, "maxItems": 1, "uniqueItems": True},
    {"type": "array", "items": {"type": "array", "items": INT, "maxItems": 2}, "maxItems": 2},
    obj({"name": STR, "age": INT}),
    obj({"a": STR, "b": INT, "c": BOOL}, ["a"]),
    obj({"a": STR, "b": INT}, []),
    obj({"a": INT}, [], additionalProperties=False),
    obj({"a": INT}, additionalProperties=True),
    obj({"a": INT}, [], additionalProperties=STR),
    {"type": "object", "additionalProperties": INT},
    {"type": "object", "additionalProperties": False},
    {"type": "object", "additionalProperties": INT, "minProperties": 1},
    {"type": "object", "additionalProperties": INT, "maxProperties": 2},
    obj({"a": INT, "b": INT, "c": INT}, [], minProperties=2, additionalProperties=False),
    obj({"a": INT, "b": INT, "c": INT}, [], maxProperties=1),
    obj({"a": INT, "b": INT, "c": INT}, ["b"], maxProperties=2, minProperties=2),
    {"type": "object", "required": ["z"]},
    obj({"a": INT}, ["z"]),
    obj({"a": False, "b": INT}, ["b"]),
    {"properties": {"a": {"type": "string"}}},
    {"type": "object", "patternProperties": {"^x": INT}},
    {"type": "object", "patternProperties": {"^[a-z]{2}$": STR}, "additionalProperties": False},
    obj({'quo"te': INT, "new\nline": INT, "é": INT, "": INT, "a/b": INT}),
    obj(
        {
            "o": obj({"p": obj({"q": INT})}),
            "l": {"type": "array", "items": obj({"k": STR, "v": NUM}), "minItems": 1},
        }
    ),
    {"$defs": {"n": {"type": "integer", "minimum": 0}}, "type": "array", "items": {"$ref": "#/$defs/n"}},
    {"definitions": {"p/q": obj({"x": INT})}, "$ref": "#/definitions/p~1q"},
    {
        "$defs": {
            "tree": obj(
                {
                    "value": INT,
                    "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2},
                }
            )
        },
        "$ref": "#/$defs/tree",
    },
    {
        "$defs": {
            "list": {"anyOf": [{"type": "null"}, obj({"head": INT, "tail": {"$ref": "#/$defs/list"}})]}
        },
        "$ref": "#/$defs/list",
    },
    obj({"next": {"$ref": "#"}, "v": INT}, ["v"]),
    {"$ref": "#/$defs/a", "description": "x", "$defs": {"a": obj({"x": STR}), "unused": {"not": {}}}},
    {"$defs": {"base": obj({"id": INT})}, "allOf": [{"$ref": "#/$defs/base"}, obj({"name": STR})]},
    {"$defs": {"base": obj({"id": INT})}, "allOf": [{"$ref": "#/$defs/base"}], "properties": {"x": BOOL}},
    {"allOf": [{"type": "integer"}, {"minimum": 3}, {"maximum": 9}]},
    {"allOf": [{"type": "number"}, {"type": "integer"}]},
    {"allOf": [{"enum": [1, 2, 3]}, {"enum": [2, 3, 4]}]},
    {"allOf": [obj({"a": INT}, additionalProperties=True), {"properties": {"a": {"minimum": 5}}}]},
    {"anyOf": [STR, INT]},
    {"anyOf": [obj({"a": INT}), obj({"b": STR})]},
    {"anyOf": [{"type": "string", "maxLength": 2}, {"type": "null"}]},
    {"anyOf": [{"const": "a"}, {"const": 1}]},
    {
        "type": "object",
        "properties": {"a": INT, "b": INT},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    {"oneOf": [STR, INT, BOOL]},
    {"oneOf": [obj({"k": {"const": "a"}, "x": INT}), obj({"k": {"const": "b"}, "y": STR})]},
    {"oneOf": [{"enum": [1, 2]}, {"enum": [3]}]},
    {"oneOf": [{"type": "string"}, {"type": "null"}]},
    {"type": "string", "title": "T", "description": "d", "default": "x", "examples": ["y"]},
    obj(
        {
            "when": {"type": "string", "format": "date-time"},
            "who": {"anyOf": [{"type": "string", "format": "email"}, {"type": "null"}], "default": None},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 3},
        }
    ),
    {"type": "array", "items": {"anyOf": [INT, {"$ref": "#"}]}, "maxItems": 2},
]
UNSUPPORTED: list[tuple[Any, str]] = [
    ({"not": {"format": "email"}}, "not"),
    ({"not": {"pattern": "^(?=a)b"}}, "not"),
    ({"not": {}}, "no value"),
    ({"contains": INT, "maxContains": 2, "prefixItems": [STR]}, "maxContains"),
    ({"unevaluatedProperties": False, "if": {"required": ["a"]}, "then": {}}, "unevaluatedProperties"),
    ({"$dynamicRef": "#x"}, "$dynamicRef"),
    ({"$recursiveRef": "#"}, "$recursiveRef"),
    ({"type": "number", "multipleOf": 1e-12}, "multipleOf"),
    ({"type": "integer", "multipleOf": 10**10 + 1}, "multipleOf"),
    ({"type": "integer", "multipleOf": 0}, "multipleOf"),
    ({"oneOf": [INT, NUM]}, "oneOf"),
    ({"oneOf": [obj({"a": INT}, []), obj({"b": INT}, [])]}, "oneOf"),
    ({"$ref": "#"}, "$ref"),
    ({"$ref": "http://x/y"}, "$ref"),
    ({"$ref": "#/nowhere"}, "$ref"),
    ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "$ref"),
    (obj({"a": {"$ref": "#"}}), "$ref"),
    ({"type": "string", "pattern": "(?=a)"}, "look-around"),
    ({"type": "string", "pattern": "^a(?=b)"}, "look-around"),
    ({"type": "string", "pattern": "(a)\\1"}, "back"),
    ({"type": "string", "pattern": "\\bx"}, "boundar"),
    ({"type": "string", "pattern": "(?i)a"}, "flags"),
    ({"type": "string", "format": "regex"}, "format"),
    ({"type": "strin"}, "type"),
    ({"type": "string", "minLength": 10**9}, "minLength"),
    ({"type": "string", "minLength": -1}, "minLength"),
    ({"type": "integer", "minimum": True}, "minimum"),
    ({"type": "integer", "minimum": 10**30}, "minimum"),
    ({"type": "integer", "maximum": -(10**30)}, "maximum"),
    ({"type": "number", "minimum": 1e30}, "minimum"),
    ({"const": 10**30}, "enum"),
    ({"enum": []}, "no value"),
    ({"type": "integer", "minimum": 5, "maximum": 1}, "no value"),
    (False, "no value"),
    ({"allOf": [STR, INT]}, "no value"),
    ({"type": "object", "patternProperties": {"^(?=a)b": INT}}, "patternProperties"),
    ({"propertyNames": {"pattern": "a"}, "properties": {"a": INT}}, "propertyNames"),
    (obj({"a": INT}, [], additionalProperties=INT, minProperties=3), "minProperties"),
    ({"type": "object", "additionalProperties": False, "required": ["a"]}, "no value"),
]
