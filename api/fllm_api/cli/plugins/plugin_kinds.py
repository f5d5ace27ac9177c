"""The kinds of plugins that ``plugins new`` creates."""

from __future__ import annotations

from msgspec import Struct


class PluginKind(Struct, frozen=True, kw_only=True):
    """Values of one kind for the templates. The files themselves are in its directory in ``templates``."""

    summary: str
    """Description of the distribution, one sentence."""
    serve: str
    """Commands that demonstrate the plugin. ``{module}`` and ``{name}`` are replaced."""
    note: str
    """First note for the author of the plugin."""
    suffix: str = ""
    """Suffix of its class name."""
    base: str | None = None
    """Base class or protocol of its class, which must have another name."""
    registry: str | None = None
    """Attribute of `fllm.plugins.loader.Plugins`: the registry in which its name must be unused."""
    page: str
    """Page of the documentation about it, in ``docs``."""
    dependencies: tuple[str, ...] = ()
    test_dependencies: tuple[str, ...] = ()


KINDS = {
    "tool-parser": PluginKind(
        summary="Parses the tool calls of a family of models.",
        page="your-first-parser.md",
        serve="furiosa-llm serve MODEL --tool-call-parser {module}",
        note="The markers are in `src/{module}/parser.py`. For calls that are not JSON see `fllm.parsing`.",
        suffix="Parser",
        base="JsonToolCallParser",
        registry="tool_parsers",
        test_dependencies=("openai>=3,<4",),
    ),
    "reasoning-parser": PluginKind(
        summary="Separates the reasoning of a family of models from their responses.",
        page="your-first-parser.md",
        serve="furiosa-llm serve MODEL --reasoning-parser {module}",
        note="The tags are in `src/{module}/parser.py`.",
        suffix="Parser",
        base="ReasoningParserBase",
        registry="reasoning_parsers",
    ),
    "backend": PluginKind(
        summary="Runs models on a device, with the server's continuous batching.",
        page="your-first-device.md",
        serve="furiosa-llm serve --devices {module}\nfuriosa-llm serve DIRECTORY --devices {module}",
        note="It uses the tokenizer of the embedded model, or of that in DIRECTORY. Replace the model in "
        "`src/{module}/runner.py`.",
        registry="backends",
        dependencies=("msgspec>=0.20", "numpy>=2.0"),
        test_dependencies=("tokenizers>=0.22",),
    ),
    "placement": PluginKind(
        summary="Starts the processes of engines on other machines.",
        page="placements.md",
        serve="furiosa-llm serve MODEL --placement {module} --placement-option command='ssh HOST'",
        note="Replace the command in `src/{module}/placement.py` by the interface of your cluster.",
        suffix="Placement",
        base="Placement",
        registry="placements",
        dependencies=("msgspec>=0.20",),
    ),
    "grammar": PluginKind(
        summary="Constrains output to the structure that a request requires.",
        page="hooks/fllm_grammars.md",
        serve="furiosa-llm serve MODEL --grammar-backend {module}",
        note="Supported constraints (see `fllm.constraints`) are in `src/{module}/grammar.py`.",
        suffix="Grammar",
        registry="grammars",
    ),
    "drafter": PluginKind(
        summary="Guesses the next tokens of sequences, for speculative decoding.",
        page="hooks/fllm_drafters.md",
        serve="furiosa-llm serve MODEL --speculative-config "
        '\'{{"method": "{module}", "num_speculative_tokens": 4}}\'',
        note="Drafts are made in `src/{module}/drafter.py`. The server verifies and measures them.",
        suffix="Drafter",
        base="Drafter",
        registry="drafters",
        dependencies=("msgspec>=0.20",),
    ),
    "chat-template": PluginKind(
        summary="A chat template for models that are published without one.",
        page="hooks/fllm_chat_template.md",
        serve="furiosa-llm serve MODEL",
        note="`src/{module}/plugin.py` selects the models, and `src/{module}/chat.jinja` is the template.",
    ),
    "metrics": PluginKind(
        summary="Reports each completed request.",
        page="hooks/fllm_collectors.md",
        serve="furiosa-llm serve MODEL",
        note="The collector is in `src/{module}/collector.py`.",
        suffix="Collector",
        base="Collector",
    ),
    "routes": PluginKind(
        summary="Adds an HTTP API that generates text.",
        page="your-first-dialect.md",
        serve="furiosa-llm serve MODEL\n"
        "curl http://localhost:8000/{name}/generate -H 'Content-Type: application/json' "
        '-d \'{{"prompt": "Hi"}}\'',
        note="The API is in `src/{module}/protocol.py`, `route.py` and `encoder.py`. "
        "`fllm.ChatRequest` has tools, images and formats, too.",
        dependencies=("litestar>=2.23", "msgspec>=0.20"),
    ),
    "page-panel": PluginKind(
        summary="Adds a panel to the page of the server.",
        page="hooks/fllm_page_panels.md",
        serve="furiosa-llm serve MODEL    # then open http://localhost:8000/",
        note="The panel is drawn by `src/{module}/panel.js`.",
    ),
}
