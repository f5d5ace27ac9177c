"""Checks of placements, opened first, and of routes, with bodies that fit their types."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from fllm.plugins.loader import Plugins
from fllm.plugins.plugin_options import option_tables
from fllm_api.cli.plugins.contracts import CheckOptions, check_plugin
from fllm_api.cli.plugins.results import PartResult
from fllm_api.cli.plugins.targets import resolve_targets

PLUGIN = """
import fllm

class Placement:
    server_address = None

    def __init__(self, context):
        self.options = context.options

    async def open(self):
        if "cluster" not in self.options:
            raise fllm.UserError("name a cluster")
        if self.options["cluster"] == "broken":
            raise KeyError("cluster")

    async def place(self, launch):
        raise fllm.BackendUnavailable("no room")

    async def close(self):
        pass

@fllm.hookimpl
def fllm_placements():
    yield fllm.PlacementEntry("{name}", "{name}:Placement", "A cluster.")
"""


def results_of(tmp_path: Path, name: str, **options: str) -> Sequence[PartResult]:
    file = tmp_path / f"{name}.py"
    file.write_text(PLUGIN.replace("{name}", name))
    [target] = resolve_targets(str(file), Plugins())
    results = check_plugin(target, CheckOptions(placement_options=options))
    return [each for each in results if each.part]


def checked(tmp_path: Path, name: str, **options: str) -> Sequence[tuple[str, str]]:
    return [(each.check, each.outcome) for each in results_of(tmp_path, name, **options)]


def test_a_placement_that_lacks_an_option_is_skipped(tmp_path: Path) -> None:
    assert checked(tmp_path, "placement_a") == [("loads without errors", "passed"), ("opens", "skipped")]


def test_a_placement_that_can_not_be_opened_fails(tmp_path: Path) -> None:
    found = checked(tmp_path, "placement_b", cluster="broken")
    assert found == [("loads without errors", "passed"), ("opens", "failed")]


def test_an_error_of_a_plugin_has_its_file_and_line(tmp_path: Path) -> None:
    failed = results_of(tmp_path, "placement_d", cluster="broken")[-1]
    line = 1 + PLUGIN.splitlines().index('            raise KeyError("cluster")')
    assert failed.reason == f"KeyError: 'cluster'\nat {tmp_path / 'placement_d.py'}, line {line}, in open"


def test_a_placement_that_opens_is_tested_with_the_contract(tmp_path: Path) -> None:
    found = dict(checked(tmp_path, "placement_c", cluster="here"))
    assert (found["opens"], found["kill ends the engine"]) == ("passed", "failed")
    assert found["a placement that was not opened can be closed"] == "passed"


ROUTES = """
import fllm
from litestar import post
from litestar.params import FromPath, JSONBody
from msgspec import Struct

class Names(Struct):
    names: list[str]
    count: int = 3

@post("/first/{number:int}", status_code=200)
async def first(number: FromPath[int], data: JSONBody[Names]) -> dict[str, str]:
    return {"first": data.names[0]}

@fllm.hookimpl
def fllm_routes():
    yield first
"""


def test_a_route_that_fails_for_a_body_of_its_type_is_found(tmp_path: Path) -> None:
    file = tmp_path / "first_route.py"
    file.write_text(ROUTES)
    [target] = resolve_targets(str(file), Plugins())
    found = {each.check: each for each in check_plugin(target, CheckOptions()) if each.part}
    failed = {check: each.reason for check, each in found.items() if each.outcome != "passed"}
    assert list(failed) == ["wrong values never break the server"]
    assert "POST /first/1, body['names'] = []: 500" in failed["wrong values never break the server"]
    assert "routes can be mounted: /first/{number:int}" in found


GREETING = """
import fllm
from msgspec import Struct

class FLLM_OPTIONS(Struct):
    name: str

class Parser:
    def __init__(self, context):
        self.name = context.options.name
    def feed(self, text):
        return [fllm.Text(text)] if text else []
    def finish(self):
        return []

@fllm.hookimpl
def fllm_tool_parsers():
    yield fllm.Entry("greeting", f"{__name__}:Parser")

@fllm.hookimpl
def fllm_routes(context):
    from litestar import get
    name = context.options.name.title()

    @get("/name", sync_to_thread=False)
    def greet() -> str:
        return name

    yield greet
"""


@pytest.mark.parametrize(("name", "outcome"), [("a", "passed"), (None, "failed")])
def test_a_plugin_is_checked_with_its_options(tmp_path: Path, name: str | None, outcome: str) -> None:
    file = tmp_path / f"greeting_{outcome}.py"
    file.write_text(GREETING)
    [target] = resolve_targets(str(file), Plugins())
    given = [] if name is None else [*option_tables({file.stem: {"name": name}})]
    found = list(check_plugin(target, CheckOptions(plugin_options=tuple(given))))
    assert {each.outcome for each in found[1:]} == {outcome}
    assert (found[1].check == "has valid options") == (name is None)
    assert name is None or {each.part for each in found} == {"", "tool-call parser greeting", "fllm_routes"}


DRAFTER = """
import fllm
from msgspec import Struct

class Options(Struct):
    {field}

class Drafter:
    def __init__(self, context):
        fllm.drafter_options(context.settings, Options)
    def start(self, sequence): pass
    def propose(self, batch): return [[{token}] for _ in batch]
    def verified(self, results): pass
    def end(self, sequence): pass
    def close(self): pass

@fllm.hookimpl
def fllm_drafters():
    yield fllm.DrafterEntry("acme", f"{__name__}:Drafter", options=Options)
"""


@pytest.mark.parametrize(
    ("field", "token", "outcomes"),
    [
        ("size: int = 1", "1", {"passed"}),
        ("size: int = 1", "-1", {"passed", "failed"}),
        ("size: int", "1", {"passed", "skipped"}),
    ],
)
def test_a_drafter_is_tested_with_the_contract(
    tmp_path: Path, field: str, token: str, outcomes: set[str]
) -> None:
    file = tmp_path / f"drafter_{len(field)}{len(token)}.py"
    file.write_text(DRAFTER.replace("{field}", field).replace("{token}", token))
    [target] = resolve_targets(str(file), Plugins())
    found = [each for each in check_plugin(target, CheckOptions()) if each.part]
    assert {each.part for each in found} == {"drafter acme"}
    assert {each.outcome for each in found} == outcomes
