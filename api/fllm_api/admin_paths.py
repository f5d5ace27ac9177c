"""Paths of the admin routes, in which the name of a model may contain slashes."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

PREFIX = "/admin/models"

_ACTION = re.compile(rf"{PREFIX}/(.+)/([a-z]+)")


def routable_path(path: str) -> str:
    """Return a path in which the name of a model is one segment: a router matches only such."""
    match = _ACTION.fullmatch(path)
    return f"{PREFIX}/{quote(match[1], safe='')}/{match[2]}" if match else path


def name_in_path(segment: str) -> str:
    """Return the name that a segment of a routable path stands for."""
    return unquote(segment)
