"""Metrics of the parts of plugins that the server uses, with the labels ``plugin``, ``kind`` and ``name``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from fllm import PluginUsage
from fllm_metrics.families import PREFIX

LABELS = ("plugin", "kind", "name")
COUNTERS: tuple[tuple[str, str, Callable[[PluginUsage], float]], ...] = (
    ("plugin_calls", "Sequences, prompts, requests or grammars", lambda usage: usage.calls),
    ("plugin_errors", "Errors that the part raised", lambda usage: usage.errors),
    ("plugin_seconds", "Time in the part; of routes, that of their requests", lambda usage: usage.seconds),
    ("plugin_events", "Events of a parser", lambda usage: usage.events),
    ("plugin_characters", "Characters that were parsed or rendered", lambda usage: usage.characters),
    ("plugin_received_bytes", "Bytes of the requests of routes", lambda usage: usage.bytes_in),
    ("plugin_sent_bytes", "Bytes of their responses", lambda usage: usage.bytes_out),
)
ALWAYS = ("plugin_calls", "plugin_errors", "plugin_seconds")
"""What every part counts. It has the others if they apply to it."""


class PluginPage(Collector):
    """Exposes what each part of the plugins has cost. A part has series once it was used."""

    def __init__(self, usage: Callable[[], Sequence[PluginUsage]]) -> None:
        self._usage = usage

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        used = self._usage()
        for name, text, value in COUNTERS if used else ():
            family = CounterMetricFamily(PREFIX + name, text, labels=LABELS)
            for usage in used:
                if name in ALWAYS or value(usage):
                    family.add_metric([usage.plugin, usage.kind, usage.name], value(usage))
            yield family
