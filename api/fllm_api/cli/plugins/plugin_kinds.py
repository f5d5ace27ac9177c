"""The kinds of plugins that ``plugins new`` writes."""

from __future__ import annotations

from msgspec import Struct


class PluginKind(Struct, frozen=True, kw_only=True):
    """What differs from kind to kind, beside the files of its directory in ``templates``."""

    summary: str
    """One sentence, for the description of the distribution."""
    serve: str
    """The commands that show it at work; ``{module}`` and ``{name}`` are the new plugin's."""
    note: str
    """What its author is told first."""
    suffix: str = ""
    """What the name of its class ends with."""
    base: str | None = None
    """What that class is derived from, or stands in for: it can't have the same name."""
    registry: str | None = None
    """The attribute of `fllm.plugins.loader.Plugins` in which its name must be new."""
    dependencies: tuple[str, ...] = ()
    test_dependencies: tuple[str, ...] = ()


KINDS = {
    "tool-parser": PluginKind(
        summary="Finds the tool calls in the answers of a family of models.",
        serve="furiosa-llm serve MODEL --tool-call-parser {module}",
        note="The markers are in `src/{module}/parser.py`. For calls that are not JSON see `fllm.parsing`.",
        suffix="Parser",
        base="JsonToolCallParser",
        registry="tool_parsers",
    ),
    "reasoning-parser": PluginKind(
        summary="Divides the reasoning of a family of models from their answers.",
        serve="furiosa-llm serve MODEL --reasoning-parser {module}",
        note="The tags are in `src/{module}/parser.py`.",
        suffix="Parser",
        base="ReasoningParserBase",
        registry="reasoning_parsers",
    ),
    "backend": PluginKind(
        summary="A device, under the server's continuous batching.",
        serve="furiosa-llm serve DIRECTORY --devices {module}",
        note="DIRECTORY has a model's tokenizer. Put your model for the one in `src/{module}/runner.py`.",
        registry="backends",
        dependencies=("msgspec>=0.20", "numpy>=2.0"),
        test_dependencies=("tokenizers>=0.22",),
    ),
    "grammar": PluginKind(
        summary="Keeps answers to what a request demands.",
        serve="furiosa-llm serve MODEL --grammar-backend {module}",
        note="What it knows of `fllm.constraints` is in `src/{module}/grammar.py`.",
        suffix="Grammar",
        registry="grammars",
    ),
    "chat-template": PluginKind(
        summary="A chat template for models that are published without one.",
        serve="furiosa-llm serve MODEL",
        note="`src/{module}/plugin.py` says for which models, `src/{module}/chat.jinja` is the template.",
    ),
    "metrics": PluginKind(
        summary="Tells of each request that is over.",
        serve="furiosa-llm serve MODEL",
        note="Where the figures go is in `src/{module}/collector.py`.",
        suffix="Collector",
        base="Collector",
    ),
    "routes": PluginKind(
        summary="HTTP routes beside the server's own.",
        serve="furiosa-llm serve MODEL\ncurl http://localhost:8000/{name}/load",
        note="The handlers are in `src/{module}/routes.py`.",
        dependencies=("litestar>=2.23", "msgspec>=0.20"),
    ),
}
