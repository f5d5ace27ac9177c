"""Requests for the routes of a plugin whose bodies are unknown, for its contract tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from litestar.types.internal_types import PathParameterDefinition
from msgspec import Struct, inspect

from fllm.testing import RouteRequest

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
PARAMETERS: dict[type[Any], str] = {str: "x", int: "1", float: "1.0", UUID: str(UUID(int=0))}
"""Values of path parameters, by type."""


def route_requests(app: Litestar, paths: Iterable[str]) -> Iterator[RouteRequest]:
    """Yield a request for each method of the routes with these paths. Bodies have the declared types."""
    wanted = set(paths)
    for route in app.routes:
        if isinstance(route, HTTPRoute) and route.path in wanted:
            path = "/" + "/".join(map(_component, route.path_components))
            for handler in route.route_handlers:
                for method in sorted(handler.http_methods):
                    if method in METHODS:
                        yield _request(path, str(method), handler)


def _request(path: str, method: str, handler: HTTPRouteHandler) -> RouteRequest:
    data = handler.parsed_data_field
    body = None if data is None else _struct_type(data.annotation)
    return RouteRequest(
        path=path,
        method=method,
        body=None if body is None else _example(body, ()),
        required=[each.encode_name for each in body.fields if each.required] if body else (),
        generates=bool(handler.opt.get("uses_engine")),
        is_valid=False,
    )


def _struct_type(kind: Any) -> inspect.StructType | None:
    if not isinstance(kind, type) or not issubclass(kind, Struct):
        return None
    described = inspect.type_info(kind)
    return described if isinstance(described, inspect.StructType) else None


def _example(described: inspect.Type, outer: tuple[inspect.Type, ...]) -> Any:
    """Return a value of a type, as JSON. Limits of the value are ignored."""
    match described:
        case inspect.Metadata(type=inner) | inspect.CustomType(cls=inner):
            return _example(inner, outer) if isinstance(inner, inspect.Type) else None
        case inspect.UnionType(types=types):
            return _example(types[0], outer)
        case inspect.StructType(fields=fields) if described not in outer:
            inside = (*outer, described)
            tag = {} if described.tag is None else {described.tag_field: described.tag}
            return {**tag, **{each.encode_name: _example(each.type, inside) for each in fields}}
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            return [_example(item, outer)]
        case inspect.LiteralType(values=values):
            return values[0]
        case inspect.BoolType():
            return False
        case inspect.IntType() | inspect.FloatType():
            return 1
        case inspect.StrType():
            return "x"
        case inspect.DictType():
            return {}
        case _:
            return None


def _component(component: str | PathParameterDefinition) -> str:
    return component if isinstance(component, str) else PARAMETERS.get(component.type, "x")
