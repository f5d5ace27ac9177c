"""The options of ``furiosa-llm serve``. Each also reads ``FURIOSA_LLM_<OPTION>`` and ``--config``.

An option with the name of a field of a configuration Struct sets that field.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import rich_click as click
from msgspec import Meta

from fllm.config import LoadFormat, ModelImpl, Runner, Speculation
from fllm.plugins.parser_detection import AUTO, NO_PARSER
from fllm_api.cli.config_file import read_config
from fllm_api.cli.param_types import (
    Devices,
    HostPort,
    Integer,
    Json,
    KeyValue,
    LoraModules,
    NonEmptyText,
    Number,
    Origins,
    RegisteredName,
    Size,
    UrlPrefix,
)
from fllm_api.cli.secrets import hash_keys
from fllm_api.config import ContentFormat, PrefixCacheIsolation, ReasoningField
from fllm_api.cors import LOCAL_PAGES

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
POSITIVE = Integer(min=1)
SECONDS = Number(0, 86400)
DTYPES = ("auto", "float16", "bfloat16", "float32", "half", "float")
SPECULATION_EXAMPLE = '{"method": "ngram", "num_speculative_tokens": 5}'
NO_GRAMMAR = "none"
"""Value of ``--grammar-backend`` that disables structured output."""
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
"""Context settings of commands that use these options."""

MODEL = click.RichArgument(
    ["model"],
    required=False,
    envvar="FURIOSA_LLM_MODEL",
    help="Directory, .gguf file or Hugging Face Hub id. Default: the embedded model.",
)

_models = partial(click.RichOption, panel="Several models")
_model = partial(click.RichOption, panel="Model")
_lora = partial(click.RichOption, panel="LoRA adapters")
_engine = partial(click.RichOption, panel="Engine")
_chat = partial(click.RichOption, panel="Chat")
_http = partial(click.RichOption, panel="HTTP")
_observability = partial(click.RichOption, panel="Observability")
_config = partial(click.RichOption, panel="Plugins and configuration")

MODEL_OPTIONS = [
    _model(["--revision"], metavar="TEXT", help="Branch, tag or commit of a Hub model."),
    _model(
        ["--served-model-name"],
        type=NonEmptyText(),
        multiple=True,
        show_default="MODEL",
        help="Model name in /v1/models. Repeat it for more names. Responses contain the first one.",
    ),
    _model(
        ["--runner"],
        type=click.Choice(get_args(Runner)),
        default="auto",
        help="generate: text. pooling: embeddings, scores, classes. auto: what the model's files declare.",
    ),
    _model(
        ["--load-format"],
        type=click.Choice(get_args(LoadFormat)),
        default="auto",
        help="Format of the weights. dummy: random weights for the model's configuration.",
    ),
    _model(
        ["--model-impl"],
        type=click.Choice(get_args(ModelImpl)),
        default="auto",
        help="Code that computes the model: native, or that of transformers. auto: native if it can.",
    ),
    _model(
        ["--dtype"], type=click.Choice(DTYPES), default="auto", help="Data type of weights and activations."
    ),
    _model(
        ["--quantization"],
        type=NonEmptyText(),
        show_default="by model",
        help="Quantization method of the backend.",
    ),
    _model(["--max-model-len"], type=POSITIVE, help="Maximum number of tokens in prompt and output."),
    _model(["--seed"], type=Integer(min=0), help="Seed of requests without one, and of dummy weights."),
]
SEVERAL_MODELS_OPTIONS = [
    _models(
        ["--models"],
        type=FILE,
        show_default="none",
        help="TOML file with [[models]]: name, source and options of each. They are loaded on demand.",
    ),
    _models(
        ["model_sources", "--model"],
        type=KeyValue("NAME=SOURCE"),
        multiple=True,
        show_default="none",
        help="Name and source of a model that is loaded on demand. Repeat it for more models.",
    ),
    _models(["--strict-model-name"], is_flag=True, help="Reject unknown names if there is one model, too."),
    _models(
        ["--memory-budget"],
        type=Size(),
        show_default="no limit",
        help="Memory for all loaded models, such as 4GiB. The least recently used make room.",
    ),
    _models(
        ["--pin"],
        type=NonEmptyText(),
        multiple=True,
        show_default="none",
        help="Name of a model that is loaded at the start and stays loaded.",
    ),
    _models(
        ["--model-idle-timeout"],
        type=SECONDS,
        default=0.0,
        help="Seconds without a request after which a model sleeps: it is unloaded. 0: never.",
    ),
]
LORA_OPTIONS = [
    _lora(
        ["--lora-modules"],
        type=LoraModules(),
        multiple=True,
        show_default="none",
        help="LoRA adapters: NAME=DIRECTORY, or JSON with name, path and base_model_name. "
        "Requests choose one by its name, as their model.",
    ),
    _lora(["--enable-lora"], is_flag=True, help="Implied by the other options."),
    _lora(
        ["--max-loras"],
        type=POSITIVE,
        show_default="no maximum",
        help="Maximum number of different adapters in one step.",
    ),
    _lora(["--max-cpu-loras"], type=POSITIVE, default=64, help="Maximum number of adapters loaded at once."),
    _lora(["--max-lora-rank"], type=POSITIVE, default=512, help="Largest rank of an adapter."),
    _lora(
        ["--enable-runtime-lora-loading"],
        is_flag=True,
        envvar=["FURIOSA_LLM_ENABLE_RUNTIME_LORA_LOADING", "VLLM_ALLOW_RUNTIME_LORA_UPDATING"],
        help="Offer /v1/load_lora_adapter and /v1/unload_lora_adapter. Every client may use them.",
    ),
    _lora(
        ["--lora-dir"],
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        multiple=True,
        show_default="none",
        help="Directory that /v1/load_lora_adapter may load adapters from.",
    ),
]
ENGINE_OPTIONS = [
    _engine(
        ["--devices"],
        type=Devices(),
        show_default="the best",
        help="Devices, such as cpu, cuda:0,cuda:1 or npu:0:0-3.",
    ),
    _engine(
        ["-tp", "--tensor-parallel-size"],
        type=POSITIVE,
        show_default="the number of devices",
        help="Number of devices, or processes on a CPU, among which the weights are divided.",
    ),
    _engine(
        ["--backend"],
        type=RegisteredName("backends"),
        show_default="by device",
        help="Backend that runs the model.",
    ),
    _engine(
        ["--backend-option"],
        type=KeyValue(),
        multiple=True,
        help="Option of the backend. `furiosa-llm plugins show BACKEND` lists them.",
    ),
    _engine(
        ["--engine-process/--no-engine-process"], default=True, help="Run the backend in its own process."
    ),
    _engine(
        ["--placement"],
        type=RegisteredName("placements"),
        default="local",
        help="What starts the process of the engine, and where.",
    ),
    _engine(
        ["--placement-option"],
        type=KeyValue(),
        multiple=True,
        help="Option of the placement. `furiosa-llm plugins show PLACEMENT` lists them.",
    ),
    _engine(
        ["--ray-address"],
        metavar="HOST:PORT",
        help="Head of the cluster for `--placement ray`; `auto`: the cluster of this machine, the default.",
    ),
    _engine(
        ["--replicas"],
        type=Integer(1, 256),
        default=1,
        help="Number of engines with the model, each in its own process. They share the requests.",
    ),
    _engine(
        ["--min-replicas"],
        type=Integer(0, 256),
        show_default="1 with --max-replicas",
        help="Fewest replicas. 0: all are stopped while there are no requests.",
    ),
    _engine(
        ["--max-replicas"],
        type=Integer(1, 256),
        show_default="--replicas",
        help="Most replicas. Their number follows the tokens that wait for them.",
    ),
    _engine(
        ["--target-queued-tokens"],
        type=POSITIVE,
        default=2048,
        help="Tokens that may wait for each replica before another is added.",
    ),
    _engine(
        ["--upscale-delay"],
        type=SECONDS,
        default=3.0,
        help="Seconds for which more tokens must wait before a replica is added.",
    ),
    _engine(
        ["--downscale-delay"],
        type=SECONDS,
        default=60.0,
        help="Seconds for which fewer replicas must be enough before one is drained and stopped.",
    ),
    _engine(
        ["--replica-start-timeout"],
        type=SECONDS,
        default=300.0,
        help="Seconds that a request waits for the first replica, with `--min-replicas 0`.",
    ),
    _engine(
        ["--resume/--no-resume"],
        default=True,
        help="If an engine ends, another replica continues its outputs. --no-resume: they end with an error.",
    ),
    _engine(
        ["--grammar-backend"],
        type=RegisteredName("grammars", NO_GRAMMAR),
        default="llguidance",
        help="Library that constrains output, for example to a JSON schema.",
    ),
    _engine(["--max-num-seqs"], type=POSITIVE, help="Maximum number of sequences per step."),
    _engine(["--max-num-batched-tokens"], type=POSITIVE, help="Maximum number of tokens per step."),
    _engine(
        ["--enable-prefix-caching/--no-enable-prefix-caching"],
        default=True,
        help="Reuse the KV cache of common prompt prefixes.",
    ),
    _engine(
        ["--kv-offload-memory"],
        type=Size(),
        show_default="none",
        help="RAM, such as 2GiB, for blocks that leave the KV cache. They are reused like those in it.",
    ),
    _engine(
        ["--kv-cache-dir"],
        type=click.Path(file_okay=False, resolve_path=True),
        show_default="none",
        help="Directory for such blocks, reused after a restart and by other engines.",
    ),
    _engine(
        ["--kv-cache-dir-size"], type=Size(), default="10GiB", help="Maximum size of all blocks in there."
    ),
    _engine(
        ["--prefix-cache-isolation"],
        type=click.Choice(get_args(PrefixCacheIsolation)),
        show_default="key, if there are API keys",
        help="Who shares the prefix cache. key: requests of one key or owner. none: all requests.",
    ),
    _engine(
        ["--shared-prefix"],
        type=FILE,
        multiple=True,
        help="File with a system prompt that all keys share in the prefix cache: text, or .json messages.",
    ),
    _engine(
        ["--engine-timeout"],
        type=SECONDS,
        default=60.0,
        help="Seconds a step may take before the engine is restarted.",
    ),
    _engine(
        ["--speculative-config"],
        type=Json(Speculation, SPECULATION_EXAMPLE),
        show_default="none",
        help=f"Speculative decoding, such as {SPECULATION_EXAMPLE}.",
    ),
]
NETWORK_OPTIONS = [
    _engine(
        ["--engine-listen"],
        type=HostPort(),
        show_default="as the placement needs",
        help="Address on which engines of other processes connect. Port 0: a free port.",
    ),
    _engine(
        ["--engine-advertise"],
        type=HostPort(port_required=False),
        show_default="where it listens",
        help="Address at which engines reach this server, behind a gateway for example.",
    ),
    _engine(
        ["--engine-tls"],
        is_flag=True,
        help="Encrypt the connections of engines, with a certificate made at the start.",
    ),
    _engine(
        ["--engine-certfile"], type=FILE, help="PEM file with the certificate for the connections of engines."
    ),
    _engine(
        ["--engine-keyfile"],
        type=FILE,
        show_default="--engine-certfile",
        help="PEM file with the key of --engine-certfile.",
    ),
]
"""Options of the connections of engines, which all models share."""
CHAT_OPTIONS = [
    _chat(
        ["--chat-template"],
        type=FILE,
        show_default="the tokenizer's",
        help="Jinja file with the chat template.",
    ),
    _chat(
        ["--chat-template-content-format"],
        type=click.Choice(get_args(ContentFormat)),
        default="auto",
        help="Form of message content that the template expects. auto: detect it.",
    ),
    _chat(
        ["--default-chat-template-kwargs"],
        type=Json(dict[str, Any], '{"enable_thinking": false}'),
        help="Variables for the chat template. Those of a request take precedence.",
    ),
    _chat(
        ["--tool-call-parser"],
        type=RegisteredName("tool_parsers", AUTO, NO_PARSER),
        default=AUTO,
        help="Parser of tool calls. auto: the one that fits the chat template, if any. "
        "none: the server's own format.",
    ),
    _chat(["--enable-auto-tool-choice"], is_flag=True, help="Implied; has no effect."),
    _chat(
        ["--exclude-tools-when-tool-choice-none/--no-exclude-tools-when-tool-choice-none"],
        default=True,
        help='Leave tools out of the prompt if tool_choice is "none".',
    ),
    _chat(
        ["--reasoning-parser"],
        type=RegisteredName("reasoning_parsers", AUTO, NO_PARSER),
        default=AUTO,
        help="Parser of reasoning. auto: the one that fits the chat template, if any.",
    ),
    _chat(["--enable-reasoning"], is_flag=True, help="Implied; has no effect."),
    _chat(
        ["--reasoning-field"],
        type=click.Choice(get_args(ReasoningField)),
        default="reasoning_content",
        help="Field of responses that holds the reasoning.",
    ),
    _chat(
        ["--trust-request-chat-template"],
        is_flag=True,
        help="Allow chat_template in requests. It is rendered in a separate process, with limits.",
    ),
    _chat(
        ["--allow-special-tokens-in-text"],
        is_flag=True,
        help="Read special tokens in the text of messages as tokens, not as text.",
    ),
    _chat(["--response-role"], type=NonEmptyText(), default="assistant", help="Role of chat responses."),
]
HTTP_OPTIONS = [
    _http(["--host"], type=NonEmptyText(), default="localhost", help="Host name or address to listen on."),
    _http(["--port"], type=Integer(0, 65535), default=8000, help="Port to listen on. 0: a free port."),
    _http(
        ["--uds"],
        type=click.Path(path_type=Path),
        show_default="none",
        help="Unix socket to listen on, instead of --host and --port.",
    ),
    _http(
        ["--ssl-certfile"], type=FILE, help="PEM file with the certificate chain. The server speaks HTTPS."
    ),
    _http(
        ["--ssl-keyfile"],
        type=FILE,
        show_default="--ssl-certfile",
        help="PEM file with the certificate's key.",
    ),
    _http(
        ["--ssl-keyfile-password"],
        type=NonEmptyText(),
        help="Password of the key file. Better: FURIOSA_LLM_SSL_KEYFILE_PASSWORD.",
    ),
    _http(["--ssl-ca-certs"], type=FILE, help="PEM file with the authorities of clients' certificates."),
    _http(
        ["--ssl-cert-reqs"],
        type=Integer(0, 2),
        default=0,
        help="Client certificates. 0: none. 1: checked if sent. 2: required.",
    ),
    _http(
        ["--root-path"],
        type=UrlPrefix(),
        default="",
        show_default="none",
        help="Path prefix behind a proxy, such as /llm. Requests may arrive with or without it.",
    ),
    _http(
        ["--trusted-proxies"],
        type=NonEmptyText(),
        multiple=True,
        show_default="none",
        help="Addresses or networks of proxies whose X-Forwarded-For names the client; unix: that of --uds.",
    ),
    _http(
        ["--api-key"],
        type=NonEmptyText(),
        multiple=True,
        callback=hash_keys,
        help="Key that requests must send as a bearer token, or in x-api-key.",
    ),
    _http(
        ["--api-key-file"],
        type=FILE,
        help="File with API keys, each line KEY or OWNER KEY. SIGHUP reloads it.",
    ),
    _http(
        ["--admin-key"],
        type=NonEmptyText(),
        multiple=True,
        callback=hash_keys,
        help="Key of the admin routes, which load, unload and pin models. Without one, there are none.",
    ),
    _http(
        ["--allowed-origins"],
        type=Origins(),
        multiple=True,
        default=(LOCAL_PAGES,),
        help="Web pages that may call the API (CORS): origins, localhost (any port), * (all) or none.",
    ),
    _http(
        ["--allowed-media-domains"],
        type=NonEmptyText(),
        multiple=True,
        metavar="HOST",
        help="Hosts from which images may be fetched, or * for all public ones. Data URLs always work.",
    ),
    _http(
        ["--limit-mm-per-prompt"],
        type=Json(dict[Literal["image"], Annotated[int, Meta(ge=0)]], '{"image": 4}'),
        help="Maximum number of images in one request, as JSON: '{\"image\": 4}'. The default is 16.",
    ),
    _http(
        ["--max-queue"],
        type=Integer(min=0),
        default=2048,
        help="Maximum number of sequences that wait for the engine. More are rejected with 503.",
    ),
    _http(
        ["--limit"],
        type=KeyValue(),
        multiple=True,
        show_default="none",
        help="Limit per client: concurrency=N (sequences in flight) or tokens-per-minute=N.",
    ),
    _http(
        ["--max-body-bytes"],
        type=POSITIVE,
        default=64 * 1024 * 1024,
        help="Maximum size of a request body. A larger body is rejected with 413.",
    ),
    _http(
        ["--max-body-memory"],
        type=POSITIVE,
        show_default="512 MiB, or 8 x --max-body-bytes",
        help="Bytes that all request bodies hold together. Others wait, then get 503.",
    ),
    _http(
        ["--max-logprob-entries"],
        type=POSITIVE,
        default=2**18,
        help="Maximum number of log-probabilities in a response. A request for more is rejected with 400.",
    ),
    _http(
        ["--max-connections"],
        type=POSITIVE,
        default=4096,
        help="Maximum number of open connections, including idle ones.",
    ),
    _http(["--request-timeout"], type=SECONDS, default=0.0, help="Seconds a request may take. 0: no limit."),
    _http(
        ["--read-timeout"], type=SECONDS, default=30.0, help="Seconds to receive the headers, and the body."
    ),
    _http(
        ["--write-timeout"],
        type=SECONDS,
        default=30.0,
        help="Seconds to wait for a client that does not read.",
    ),
    _http(
        ["--sse-keep-alive"],
        type=SECONDS,
        default=10.0,
        help="Seconds without an event after which a stream sends its headers and a comment. 0: never.",
    ),
    _http(
        ["--shutdown-timeout"],
        type=SECONDS,
        default=30.0,
        help="Seconds to finish open requests at shutdown.",
    ),
]
OBSERVABILITY_OPTIONS = [
    _observability(["--enable-metrics"], is_flag=True, help="Serve /metrics for Prometheus."),
    _observability(["--disable-log-stats"], is_flag=True, help="Do not log statistics every ten seconds."),
    _observability(
        ["--metrics-compat"],
        type=click.Choice(METRICS_COMPAT),
        multiple=True,
        help="Also export metrics under the names that this server uses.",
    ),
    _observability(
        ["--otlp-endpoint"],
        type=NonEmptyText(),
        help="Send traces to this endpoint, such as http://localhost:4318.",
    ),
    _observability(
        ["--log-requests/--no-log-requests"],
        default=True,
        help="Log a line for each request: status, tokens, times.",
    ),
    _observability(
        ["--log-format"], type=click.Choice(LOG_FORMATS), default="console", help="Format of log lines."
    ),
    _observability(
        ["--enable-payload-logging"], is_flag=True, help="Print every request and response to stdout."
    ),
    _observability(
        ["--log-level"], type=click.Choice(LOG_LEVELS), default="info", help="Lowest level to log."
    ),
]
PLUGIN_OPTIONS = [
    _config(
        ["--plugin"],
        type=FILE,
        multiple=True,
        default=(),
        is_eager=True,
        help="Plugin to load from a .py file.",
    ),
    _config(
        ["--disable-plugin"],
        type=NonEmptyText(),
        multiple=True,
        default=(),
        is_eager=True,
        envvar=["FURIOSA_LLM_DISABLE_PLUGIN", "FLLM_DISABLE_PLUGINS"],
        help="Name of a plugin or distribution to disable.",
    ),
]
CONFIG = _config(["--config"], type=FILE, is_eager=True, callback=read_config, help="TOML file with options.")


SERVE_PARAMS: list[click.Parameter] = [
    MODEL,
    *MODEL_OPTIONS,
    *SEVERAL_MODELS_OPTIONS,
    *LORA_OPTIONS,
    *ENGINE_OPTIONS,
    *NETWORK_OPTIONS,
    *CHAT_OPTIONS,
    *HTTP_OPTIONS,
    *OBSERVABILITY_OPTIONS,
    CONFIG,
    *PLUGIN_OPTIONS,
]
"""All parameters of ``furiosa-llm serve``."""
