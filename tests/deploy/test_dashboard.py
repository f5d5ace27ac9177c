"""Dashboard, rules and metrics page, with a real Prometheus that scrapes a real server under load."""

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
MODEL = "monitored"
SPECULATION = json.dumps({"method": "ngram", "num_speculative_tokens": 3})
VARIABLES = {"$__rate_interval": "1m", "$model_name": ".*", "$instance": ".*"}


def panel_expressions() -> Iterator[tuple[str, str]]:
    """Yield each expression of the dashboard with the title of its panel."""
    for panel in PANELS:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for variable, value in VARIABLES.items():
                expression = expression.replace(variable, value)
            yield f"{panel['title']}: {target['legendFormat'] or target['refId']}", expression


PANEL_EXPRESSIONS = sorted(set(panel_expressions()))


def metrics_of(expression: str) -> set[str]:
    """Return the names of the metrics in an expression, without labels and strings."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(by|on|without|ignoring) *\([^)]*\)", "", expression)
    return set(re.findall(r"\b(?:furiosa_llm:|model_name:|process_)\w+(?::\w+)*|\bup\b", bare))


@pytest.fixture(scope="module")
def server(serve: Serve) -> Server:
    options = ("--enable-metrics", "--max-model-len", "2048", "--speculative-config", SPECULATION)
    return serve(*options, "--served-model-name", MODEL)


def ask(server: Server, **body: object) -> int:
    """Send a repetitive prompt, which gives speculation something to draft; return the status code."""
    prompt = "one two three one two three one two three one two"
    fields = {"model": MODEL, "prompt": prompt, "max_tokens": 12, **body}
    headers = {"content-type": "application/json"}
    try:
        with urlopen(
            Request(f"{server.api}/completions", json.dumps(fields).encode(), headers), timeout=120
        ) as response:
            response.read()
            return int(response.status)
    except HTTPError as error:
        with error:
            return error.code


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Run Prometheus while requests succeed and are rejected, until the last test ends."""
    stop = threading.Event()

    def load() -> None:
        for i in range(1000):
            if stop.is_set():
                return
            ask(server, stream=i % 2 == 0)
            ask(server, max_tokens=-2)
            stop.wait(0.2)

    with running_prometheus(
        server.url.removeprefix("http://"), tmp_path_factory.mktemp("prometheus")
    ) as running:
        running.wait(lambda: running.query("up") == [1.0], "a first scrape")
        assert (ask(server), ask(server, max_tokens=-2)) == (200, 400)
        thread = threading.Thread(target=load)
        thread.start()
        try:
            yield running
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize(
    ("title", "expression"), PANEL_EXPRESSIONS, ids=[title for title, _ in PANEL_EXPRESSIONS]
)
def test_every_expression_of_the_dashboard_has_values(
    prometheus: Prometheus, title: str, expression: str
) -> None:
    def has_values() -> bool:
        values = prometheus.query(expression)
        return bool(values) and not any(map(math.isnan, values))

    prometheus.wait(has_values, f"values of {title}: {expression}")


def test_every_rule_is_evaluated_without_errors(prometheus: Prometheus) -> None:
    def rules() -> list[dict[str, Any]]:
        return [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]

    prometheus.wait(lambda: all(rule["health"] != "unknown" for rule in rules()), "an evaluation")
    names = sorted(rule.get("record") or rule["alert"] for rule in RULES)
    assert sorted(rule["name"] for rule in rules()) == names
    assert {rule["name"]: rule.get("lastError", "") for rule in rules() if rule["health"] != "ok"} == {}


def test_every_metric_in_panels_and_rules_exists(prometheus: Prometheus) -> None:
    names_in_use = set[str]()
    for expression in [
        *(expression for _, expression in PANEL_EXPRESSIONS),
        *(rule["expr"] for rule in RULES),
    ]:
        names = metrics_of(expression)
        assert names, expression
        names_in_use |= names

    def all_exist() -> bool:
        return names_in_use <= set(prometheus.ask("label/__name__/values"))

    prometheus.wait(all_exist, f"all of {sorted(names_in_use)}")


def test_every_metric_is_in_a_panel_or_rule(prometheus: Prometheus) -> None:
    names = {name for name in prometheus.ask("label/__name__/values") if name.startswith("furiosa_llm:")}
    families = {re.sub(r"_(sum|count)$", "_bucket", name) for name in names}
    expressions = [*(expression for _, expression in PANEL_EXPRESSIONS), *(rule["expr"] for rule in RULES)]
    used = set[str]().union(*map(metrics_of, expressions))
    assert families - used == set()


def test_rejected_requests_are_not_server_failures(prometheus: Prometheus) -> None:
    refused = 'sum(increase(furiosa_llm:request_outcome_total{outcome="refused"}[1m])) > 0'
    prometheus.wait(lambda: bool(prometheus.query(refused)), "refused requests")
    assert prometheus.query('sum(furiosa_llm:request_outcome_total{outcome=~"error|unavailable"})') == [0.0]


def test_promtool_reports_only_the_colon_in_metric_names(server: Server) -> None:
    assert ask(server) == 200
    with urlopen(f"{server.url}/metrics", timeout=30) as response:
        page = response.read().decode()
    result = promtool("check", "metrics", page=page)
    # Furiosa's own server has the colon in its names too, and existing dashboards use them.
    others = [line for line in result.stderr.splitlines() if "should not contain ':'" not in line]
    assert others == []
    assert result.returncode == 3, "promtool's status for lint problems, such as the colon"


def test_panels_have_unique_ids_and_do_not_overlap() -> None:
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


def test_the_data_source_is_a_variable() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables.keys() == {"datasource", "model_name", "instance"}
    users = [*PANELS, *(target for panel in PANELS for target in panel.get("targets", ()))]
    uids = {each["datasource"]["uid"] for each in users if each.get("type") != "row"}
    assert uids == {"${datasource}"}


def test_compose_mounts_the_files_that_grafana_reads() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    mounts = dict(str(volume).split(":")[:2] for volume in compose["services"]["grafana"]["volumes"])
    provider = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/furiosa-llm.yaml").read_text())
    path = Path(provider["providers"][0]["options"]["path"])
    assert Path(mounts["./deploy/grafana/furiosa-llm.json"]).parent == path
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
