"""The alerting rules, without a server: valid, tested, and documented in docs/operations.md."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from support.paths import ROOT
from support.prometheus_tools import promtool

FOLDER = ROOT / "deploy/prometheus"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
OPERATIONS = (ROOT / "docs/operations.md").read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "deploy/prometheus/prometheus.yml"),
        ("check", "rules", "deploy/prometheus/rules.yml"),
    ],
    ids=["config", "rules"],
)
def test_promtool_accepts(arguments: tuple[str, ...]) -> None:
    done = promtool(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_at_the_right_time() -> None:
    done = promtool("test", "rules", "deploy/prometheus/tests.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test() -> None:
    tests = yaml.safe_load((FOLDER / "tests.yml").read_text())["tests"]
    quiet, *others = [test["alert_rule_test"] for test in tests]
    names = {alert["alert"] for alert in ALERTS}
    assert {case["alertname"] for case in quiet if not case["exp_alerts"]} == names
    assert {case["alertname"] for cases in others for case in cases if case["exp_alerts"]} == names


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_has_a_severity_and_a_runbook(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["annotations"].keys() == {"summary", "description", "runbook"}
    assert alert["annotations"]["runbook"] == f"docs/operations.md#{alert['alert'].lower()}"
    assert re.search(rf"^#### {alert['alert']}\n\n\w", OPERATIONS, re.MULTILINE)


def test_the_page_documents_exactly_the_alerts() -> None:
    assert re.findall(r"^#### (FuriosaLLM\w+)$", OPERATIONS, re.MULTILINE) == [a["alert"] for a in ALERTS]
