"""Write the index of the built-in plugins and of the examples, and the JSON Schema of indexes.

scripts/plugin_index.py           write them
scripts/plugin_index.py --check   exit with 1 if they are others
"""

from __future__ import annotations

import importlib
import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fllm.plugins.discovery import SERVER, Candidate
from fllm.plugins.loader import PluginReport, Plugins, load_plugins
from fllm_api.cli.plugins.packages.index import BUILT_IN, json_schema

ROOT = Path(__file__).parents[1]
SCHEMA = BUILT_IN.with_name("plugin-index.schema.json")
KINDS = {
    "backend": "backend",
    "placement": "placement",
    "tool-call parser": "tool-parser",
    "reasoning parser": "reasoning-parser",
    "grammar backend": "grammar",
    "drafter": "drafter",
    "command": "command",
    "fllm_chat_template": "chat-template",
    "fllm_collectors": "metrics",
    "fllm_routes": "routes",
    "fllm_page_panels": "page-panel",
}
"""Kinds of the index, by kind of entry, and by hook without entries."""
SUMMARIES = {
    "backends": "Engines: PyTorch, processes, replicas, OpenAI-compatible servers, RNGD; grammars, drafters.",
    "batches": "OpenAI's files and batches: /v1/files and /v1/batches.",
    "bench": "Measures a server: `furiosa-llm bench`.",
    "messages": "Anthropic's Messages API: /v1/messages.",
    "metrics": "Prometheus metrics, log lines of requests, and `furiosa-llm top`.",
    "ollama": "The routes that clients of Ollama need.",
    "otel": "Traces with OpenTelemetry.",
    "page": "A page in the browser: chat, look inside, watch the machine.",
    "parsers": "Parsers for the tool calls and the reasoning of many families of models.",
    "placements": "Engines in a Ray cluster.",
    "pooling": "Embeddings, reranking, scores and classification.",
    "responses": "OpenAI's Responses API: /v1/responses.",
    "systemone": "Questions with fixed answers: the probability of each, without generating text.",
    "templates": "Chat templates for models that are published without one.",
    "terminal": "Chat in the terminal: `furiosa-llm chat` and `furiosa-llm run`.",
    "tokens": "/tokenize, /detokenize and /apply-template.",
}
"""Of the built-in plugins."""
EXTRAS = {"otel": ["otel"], "placements": ["ray"]}


PUBLISHED: list[dict[str, Any]] = []
"""Plugins on PyPI, as docs/plugin-index.md describes an entry."""


def built_in() -> Iterator[dict[str, Any]]:
    """Yield the plugins of the server."""
    for report in load_plugins().reports:
        if report.distribution == SERVER:
            requires = {"extras": EXTRAS[report.name]} if report.name in EXTRAS else {}
            yield described(report, SERVER, SUMMARIES[report.name], requires=requires, license="Apache-2.0")


def examples() -> Iterator[dict[str, Any]]:
    """Yield the plugins of ``examples``, which are not on a package index."""
    for file in sorted(ROOT.glob("examples/*/pyproject.toml")):
        project = tomllib.loads(file.read_text("utf-8"))["project"]
        sys.path.insert(0, str(file.parent / "src"))
        for name, module in project["entry-points"]["fllm"].items():
            plugins = Plugins()
            plugins.load(
                Candidate(name, project["name"], "", module, lambda m=module: importlib.import_module(m))
            )
            [report] = plugins.reports
            if report.error:
                raise SystemExit(f"{file}: {report.error}")
            summary = project["description"].removeprefix("A furiosa-llm plugin: ")
            source = f"{'../' * 5}{file.parent.relative_to(ROOT).as_posix()}"
            yield described(
                report,
                project["name"],
                summary[0].upper() + summary[1:],
                license=project["license"],
                source=source,
            )


def described(report: PluginReport, distribution: str, summary: str, **others: Any) -> dict[str, Any]:
    """Return one plugin of the index."""
    offered = [name for names in report.offers.values() for name in names]
    kinds = {KINDS[name] for name in (*report.offers, *report.hooks) if name in KINDS}
    return {
        "name": report.name,
        "distribution": distribution,
        "summary": summary,
        "kinds": sorted(kinds),
        "entries": sorted(set(offered)),
        **{name: value for name, value in others.items() if value},
    }


def main() -> int:
    """Write or check the files."""
    index = {"version": 1, "plugins": [*built_in(), *examples(), *PUBLISHED]}
    stale = False
    for file, content in ((BUILT_IN, index), (SCHEMA, json_schema())):
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        if not file.exists() or file.read_text("utf-8") != text:
            stale = True
            if "--check" not in sys.argv:
                file.write_text(text, "utf-8")
    if stale and "--check" in sys.argv:
        print("the index of plugins is out of date: run python scripts/plugin_index.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
