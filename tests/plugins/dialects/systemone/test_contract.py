from __future__ import annotations

from fllm.testing import RouteRequest, RoutesContract
from fllm_dialects.systemone import plugin

QUESTIONS = {
    "urgent": {"type": "noul", "instructions": "Is it urgent?", "criteria": {"true": "today"}},
    "team": {"type": "choice", "criteria": {"billing": None, "sales": "prices"}},
    "mood": {"type": "score", "criteria": ["calm", "angry"]},
}
DECISIONS = [
    {"type": "predicate", "name": "urgent", "instructions": "It is urgent."},
    {"type": "choice", "instructions": "Team?", "choices": [{"value": "billing"}, {"value": True}]},
    {"type": "score", "instructions": "Mood?", "levels": [{"label": "calm"}, {"label": "angry"}]},
]


class TestSystemOne(RoutesContract):
    plugin = plugin
    requests = (
        RouteRequest(
            path="/v1/systemone",
            body={"state": {"ticket": "charged twice"}, "questions": QUESTIONS},
            required=["state", "questions"],
            generates=False,
        ),
        RouteRequest(
            path="/v1/decisions",
            body={"model": "m", "input": "charged twice", "questions": DECISIONS},
            required=["model", "input", "questions"],
            generates=False,
        ),
    )
