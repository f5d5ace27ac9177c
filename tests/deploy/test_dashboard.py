"""The dashboard, the rules and the page of metrics: a real Prometheus scrapes a real server under load."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml
from support.paths import ROOT
from support.prometheus_tools import Prometheus, promtool, running_prometheus

from fllm.testing import Serve, Server

DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/furiosa-llm.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
MODEL = "watched"
SPECULATION = json.dumps({"method": "ngram", "num_speculative_tokens": 3})
VARIABLES = {"$__rate_interval": "1m", "$model_name": ".*", "$instance": ".*"}


def drawn() -> Iterator[tuple[str, str]]:
    """Each expression of the dashboard, by its panel."""
    for panel in PANELS:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for variable, value in VARIABLES.items():
                expression = expression.replace(variable, value)
            yield f"{panel['title']}: {target['legendFormat'] or target['refId']}", expression


DRAWN = sorted(set(drawn()))


def metrics_of(expression: str) -> set[str]:
    """The names of metrics in an expression, its labels and strings left out."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(by|on|without|ignoring) *\([^)]*\)", "", expression)
    return set(re.findall(r"\b(?:furiosa_llm:|model_name:|process_)\w+(?::\w+)*|\bup\b", bare))


@pytest.fixture(scope="module")
def server(serve: Serve) -> Server:
    options = ("--enable-metrics", "--max-model-len", "2048", "--speculative-config", SPECULATION)
    return serve(*options, "--served-model-name", MODEL)


def ask(server: Server, **body: object) -> int:
    """The status of a short answer, in which much is repeated: speculation has something to guess."""
    prompt = "one two three one two three one two three one two"
    words = {"model": MODEL, "prompt": prompt, "max_tokens": 12, **body}
    headers = {"content-type": "application/json"}
    try:
        with urlopen(
            Request(f"{server.api}/completions", json.dumps(words).encode(), headers), timeout=120
        ) as answer:
            answer.read()
            return int(answer.status)
    except HTTPError as refusal:
        with refusal:
            return refusal.code


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One that has seen requests come, be answered and be refused; more come until it is no longer needed."""
    stop = threading.Event()

    def load() -> None:
        for turn in range(1000):
            if stop.is_set():
                return
            ask(server, stream=turn % 2 == 0)
            ask(server, max_tokens=-1)
            stop.wait(0.2)

    with running_prometheus(
        server.url.removeprefix("http://"), tmp_path_factory.mktemp("prometheus")
    ) as running:
        running.wait(lambda: running.query("up") == [1.0], "a first scrape")
        assert (ask(server), ask(server, max_tokens=-1)) == (200, 400)
        thread = threading.Thread(target=load)
        thread.start()
        try:
            yield running
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize(("title", "expression"), DRAWN, ids=[title for title, _ in DRAWN])
def test_every_expression_of_the_dashboard_has_values(
    prometheus: Prometheus, title: str, expression: str
) -> None:
    def has_values() -> bool:
        values = prometheus.query(expression)
        return bool(values) and not any(map(math.isnan, values))

    prometheus.wait(has_values, f"values of {title}: {expression}")


def test_every_rule_is_evaluated_without_a_complaint(prometheus: Prometheus) -> None:
    def rules() -> list[dict[str, Any]]:
        return [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]

    prometheus.wait(lambda: all(rule["health"] != "unknown" for rule in rules()), "an evaluation")
    names = sorted(rule.get("record") or rule["alert"] for rule in RULES)
    assert sorted(rule["name"] for rule in rules()) == names
    assert {rule["name"]: rule.get("lastError", "") for rule in rules() if rule["health"] != "ok"} == {}


def test_every_metric_that_is_drawn_or_watched_exists(prometheus: Prometheus) -> None:
    wanted = set[str]()
    for expression in [*(expression for _, expression in DRAWN), *(rule["expr"] for rule in RULES)]:
        names = metrics_of(expression)
        assert names, expression
        wanted |= names

    def all_exist() -> bool:
        return wanted <= set(prometheus.ask("label/__name__/values"))

    prometheus.wait(all_exist, f"all of {sorted(wanted)}")


def test_every_metric_of_ours_is_drawn_or_watched(prometheus: Prometheus) -> None:
    names = {name for name in prometheus.ask("label/__name__/values") if name.startswith("furiosa_llm:")}
    families = {re.sub(r"_(sum|count)$", "_bucket", name) for name in names}
    expressions = [*(expression for _, expression in DRAWN), *(rule["expr"] for rule in RULES)]
    used = set[str]().union(*map(metrics_of, expressions))
    assert families - used == set()


def test_refusals_are_no_failures_of_the_server(prometheus: Prometheus) -> None:
    refused = 'sum(increase(furiosa_llm:request_outcome_total{outcome="refused"}[1m])) > 0'
    prometheus.wait(lambda: bool(prometheus.query(refused)), "refused requests")
    assert prometheus.query('sum(furiosa_llm:request_outcome_total{outcome=~"error|unavailable"})') == [0.0]


def test_promtool_finds_nothing_in_the_page_but_the_colon_of_its_names(server: Server) -> None:
    assert ask(server) == 200
    with urlopen(f"{server.url}/metrics", timeout=30) as response:
        page = response.read().decode()
    complaints = promtool("check", "metrics", page=page)
    # The colon is in the names of Furiosa's own server, which dashboards know.
    others = [line for line in complaints.stderr.splitlines() if "should not contain ':'" not in line]
    assert others == []
    assert complaints.returncode == 3, "its status for complaints, of which the colon is one"


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    places = [panel["gridPos"] for panel in PANELS]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert all(0 <= x < 24 for x, _ in cells)


def test_the_data_source_can_be_chosen() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables.keys() == {"datasource", "model_name", "instance"}
    asking = [*PANELS, *(target for panel in PANELS for target in panel.get("targets", ()))]
    uids = {each["datasource"]["uid"] for each in asking if each.get("type") != "row"}
    assert uids == {"${datasource}"}


def test_compose_mounts_what_grafana_is_told_to_read() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    mounts = dict(str(volume).split(":")[:2] for volume in compose["services"]["grafana"]["volumes"])
    provider = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/furiosa-llm.yaml").read_text())
    path = Path(provider["providers"][0]["options"]["path"])
    assert Path(mounts["./deploy/grafana/furiosa-llm.json"]).parent == path
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
