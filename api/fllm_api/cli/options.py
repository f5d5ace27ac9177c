"""The options of ``furiosa-llm serve``. Each also reads ``FURIOSA_LLM_<OPTION>`` and ``--config``.

Where an option bears the name of a field of a configuration Struct, it is that field.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, get_args

import rich_click as click

from fllm.config import LoadFormat, Speculation
from fllm.plugins.parser_detection import AUTO
from fllm_api.cli.config_file import read_config
from fllm_api.cli.param_types import Devices, Json, KeyValue, NonEmptyText, RegisteredName
from fllm_api.cli.secrets import hash_keys
from fllm_api.config import ContentFormat

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
POSITIVE = click.IntRange(min=1)
SECONDS = click.FloatRange(0, 86400)
DTYPES = ("auto", "float16", "bfloat16", "float32", "half", "float")
SPECULATION_EXAMPLE = '{"method": "ngram", "num_speculative_tokens": 5}'
NO_GRAMMAR = "none"
"""No answer can be constrained."""
LOG_FORMATS = ("console", "json")
METRICS_COMPAT = ("vllm",)
LOG_LEVELS = ("debug", "info", "warning", "error")

CONTEXT_SETTINGS: dict[str, Any] = {
    "auto_envvar_prefix": "FURIOSA_LLM",
    "show_default": True,
    "rich_help_config": {
        "options_table_column_types": ["opt_all", "help"],
        "options_table_help_sections": ["help", "metavar", "default"],
    },
}
"""For commands that have these options."""

MODEL = click.RichArgument(
    ["model"],
    required=False,
    envvar="FURIOSA_LLM_MODEL",
    help="Directory, .gguf file or Hub id; without it, the embedded model.",
)

_model = partial(click.RichOption, panel="Model")
_engine = partial(click.RichOption, panel="Engine")
_chat = partial(click.RichOption, panel="Chat")
_http = partial(click.RichOption, panel="HTTP")
_watch = partial(click.RichOption, panel="Observation")
_find = partial(click.RichOption, panel="Plugins and configuration")

MODEL_OPTIONS = [
    _model(["--revision"], metavar="TEXT", help="Branch, tag or commit of a Hub id."),
    _model(
        ["--served-model-name"],
        type=NonEmptyText(),
        show_default="MODEL",
        help="Name in answers and in /v1/models.",
    ),
    _model(
        ["--load-format"],
        type=click.Choice(get_args(LoadFormat)),
        default="auto",
        help="dummy: random weights of the model's configuration.",
    ),
    _model(["--dtype"], type=click.Choice(DTYPES), default="auto", help="Of weights and activations."),
    _model(
        ["--quantization"],
        type=NonEmptyText(),
        show_default="by model",
        help="A method that the backend knows.",
    ),
    _model(["--max-model-len"], type=POSITIVE, help="Tokens of prompt and answer together at most."),
    _model(["--seed"], type=click.IntRange(min=0), help="For requests without their own, and dummy weights."),
]
ENGINE_OPTIONS = [
    _engine(
        ["--devices"], type=Devices(), show_default="the best", help="Such as cpu, cuda:0,cuda:1, npu:0:0-3."
    ),
    _engine(["--backend"], type=RegisteredName("backends"), show_default="by device", help="Engine."),
    _engine(["--backend-option"], type=KeyValue(), multiple=True, help="An option of the backend's own."),
    _engine(["--engine-process/--no-engine-process"], default=True, help="Give it a process of its own."),
    _engine(
        ["--grammar-backend"],
        type=RegisteredName("grammars", NO_GRAMMAR),
        default="xgrammar",
        help="What constrains answers, to a JSON schema for example.",
    ),
    _engine(["--max-num-seqs"], type=POSITIVE, help="Sequences in one step at most."),
    _engine(["--max-num-batched-tokens"], type=POSITIVE, help="Tokens in one step at most."),
    _engine(
        ["--enable-prefix-caching/--no-enable-prefix-caching"],
        default=True,
        help="Compute a prompt's known beginning only once.",
    ),
    _engine(
        ["--engine-timeout"],
        type=SECONDS,
        default=60.0,
        help="Start the engine again if a step takes as many seconds.",
    ),
    _engine(
        ["--speculative-config"],
        type=Json(Speculation, SPECULATION_EXAMPLE),
        show_default="none",
        help=f"Guess tokens and verify several at once: {SPECULATION_EXAMPLE}.",
    ),
]
CHAT_OPTIONS = [
    _chat(["--chat-template"], type=FILE, show_default="the tokenizer's", help="Jinja file."),
    _chat(
        ["--chat-template-content-format"],
        type=click.Choice(get_args(ContentFormat)),
        default="auto",
        help="How the template wants a message's content; auto reads it.",
    ),
    _chat(
        ["--default-chat-template-kwargs"],
        type=Json(dict[str, Any], '{"enable_thinking": false}'),
        help="Variables of the template; a request's own win.",
    ),
    _chat(
        ["--tool-call-parser"],
        type=RegisteredName("tool_parsers", AUTO),
        help="Find tool calls in answers; auto: as the chat template says.",
    ),
    _chat(["--enable-auto-tool-choice"], is_flag=True, help="Implied by --tool-call-parser."),
    _chat(
        ["--reasoning-parser"],
        type=RegisteredName("reasoning_parsers", AUTO),
        help="Find reasoning in answers; auto: as the chat template says.",
    ),
    _chat(["--enable-reasoning"], is_flag=True, help="Implied by --reasoning-parser."),
    _chat(
        ["--trust-request-chat-template"],
        is_flag=True,
        help="Let a request bring a chat_template; it runs in a process of its own, under limits.",
    ),
    _chat(["--response-role"], type=NonEmptyText(), default="assistant", help="Role in chat answers."),
]
HTTP_OPTIONS = [
    _http(["--host"], type=NonEmptyText(), default="localhost", help="Name or address to listen at."),
    _http(["--port"], type=click.IntRange(0, 65535), default=8000, help="0 picks a free one."),
    _http(
        ["--api-key"],
        type=NonEmptyText(),
        multiple=True,
        callback=hash_keys,
        help="Bearer token that requests need.",
    ),
    _http(["--api-key-file"], type=FILE, help="More of them, one a line; SIGHUP reads it again."),
    _http(
        ["--allowed-origins"],
        type=Json(list[str], '["https://example.org"]'),
        help="Origins of web pages that may call.",
    ),
    _http(
        ["--max-queue"],
        type=click.IntRange(min=0),
        default=2048,
        help="Sequences that wait for the engine at most; more are refused with 503.",
    ),
    _http(
        ["--limit"],
        type=KeyValue(),
        multiple=True,
        show_default="none",
        help="For each client: concurrency=N requests, tokens-per-minute=N.",
    ),
    _http(["--max-body-bytes"], type=POSITIVE, default=64 * 1024 * 1024, help="A longer body is a 413."),
    _http(
        ["--max-connections"], type=POSITIVE, default=4096, help="Connections open at once, idle ones too."
    ),
    _http(["--request-timeout"], type=SECONDS, default=0.0, help="Seconds for an answer; 0: no limit."),
    _http(["--read-timeout"], type=SECONDS, default=30.0, help="Seconds for headers, and for a body."),
    _http(["--write-timeout"], type=SECONDS, default=30.0, help="Seconds for a client that does not read."),
    _http(["--shutdown-timeout"], type=SECONDS, default=30.0, help="Seconds to drain."),
]
OBSERVABILITY_OPTIONS = [
    _watch(["--enable-metrics"], is_flag=True, help="Serve /metrics for Prometheus."),
    _watch(["--disable-log-stats"], is_flag=True, help="No line about load every ten seconds."),
    _watch(
        ["--metrics-compat"],
        type=click.Choice(METRICS_COMPAT),
        multiple=True,
        help="Expose metrics under these names, too.",
    ),
    _watch(
        ["--otlp-endpoint"], type=NonEmptyText(), help="Send traces there, such as http://localhost:4318."
    ),
    _watch(
        ["--log-requests/--no-log-requests"],
        default=True,
        help="A line for each request: status, tokens, times.",
    ),
    _watch(["--log-format"], type=click.Choice(LOG_FORMATS), default="console", help="Of the log."),
    _watch(["--enable-payload-logging"], is_flag=True, help="Print every request and answer on stdout."),
    _watch(["--log-level"], type=click.Choice(LOG_LEVELS), default="info", help="Least severe to be logged."),
]
PLUGIN_OPTIONS = [
    _find(["--plugin"], type=FILE, multiple=True, default=(), is_eager=True, help="A .py file to load."),
    _find(
        ["--disable-plugin"],
        type=NonEmptyText(),
        multiple=True,
        default=(),
        is_eager=True,
        envvar=["FURIOSA_LLM_DISABLE_PLUGIN", "FLLM_DISABLE_PLUGINS"],
        help="Name of a plugin or distribution to leave out.",
    ),
]
CONFIG = _find(["--config"], type=FILE, is_eager=True, callback=read_config, help="TOML file of options.")


SERVE_PARAMS: list[click.Parameter] = [
    MODEL,
    *MODEL_OPTIONS,
    *ENGINE_OPTIONS,
    *CHAT_OPTIONS,
    *HTTP_OPTIONS,
    *OBSERVABILITY_OPTIONS,
    CONFIG,
    *PLUGIN_OPTIONS,
]
"""All parameters of ``furiosa-llm serve``."""
