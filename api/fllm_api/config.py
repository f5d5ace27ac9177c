"""Configuration of the HTTP server, built by the command line and passed down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct, field

from fllm.config import Positive
from fllm.plugins.parser_detection import AUTO
from fllm_api.api_keys import ApiKeys
from fllm_api.cors import LOCAL_PAGES
from fllm_api.record_config import RecordConfig
from fllm_api.tls import ServerTls
from fllm_api.trusted_proxies import TrustedProxies

PrefixCacheIsolation = Literal["key", "none"]
ReasoningField = Literal["reasoning_content", "reasoning", "both"]
ContentFormat = Literal["auto", "string", "openai"]


class RateLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """Limits of each client (``--limit KEY=VALUE``). ``None`` means unlimited."""

    concurrency: Positive | None = None
    """Maximum number of requests in flight, waiting ones included."""
    tokens_per_minute: Positive | None = None
    """Maximum number of prompt and generated tokens per minute."""


MAX_IMAGES = 16
"""Default of the maximum number of images in one request."""


class ServerConfig(Struct, frozen=True, kw_only=True):
    """The options of ``furiosa-llm serve`` that concern HTTP and chat."""

    served_model_name: str
    """The model's name in responses and in `/v1/models`."""
    served_model_aliases: tuple[str, ...] = ()
    """Other names of the model in `/v1/models`."""
    host: str = "localhost"
    port: int = 8000
    """0 selects a free port."""
    uds: Path | None = None
    """Path of a unix socket to listen on instead."""
    tls: ServerTls | None = None
    """The certificate, if the server speaks HTTPS."""
    root_path: str = ""
    """Path prefix of a proxy, which requests may have or not."""
    trusted_proxies: TrustedProxies = TrustedProxies()
    """Peers whose ``X-Forwarded-For`` names the client."""
    keys: ApiKeys = field(default_factory=ApiKeys)
    """If there are any, every route except `/health` and `/ready` requires one as its Bearer token."""
    data_dir: Path | None = None
    """Private directory for what plugins store, such as responses. ``None``: nothing is stored on disk."""
    admin_keys: ApiKeys | None = None
    """Keys of the admin routes, which do not exist without one."""
    strict_model_name: bool = False
    """Whether a request must name a model of the server even if there is only one."""
    memory_budget: int | None = None
    """Bytes for all loaded models; the least recently used are unloaded. ``None``: no limit."""
    limits: RateLimits = RateLimits()
    owner_limits: Mapping[str, RateLimits] = {}
    """Limits of owners of keys that have their own, by the owner's name."""
    max_queue: int = 2048
    """Sequences that may wait in addition to those that the engine runs; more are rejected with 503."""
    request_timeout: float = 0.0
    """Seconds from the arrival of a request to the end of its response; 0 means no limit."""
    read_timeout: float = 30.0
    """Seconds for a request's headers, and for its body."""
    write_timeout: float = 30.0
    """Seconds that response data may wait for a client that does not read."""
    max_connections: int = 4096
    allowed_origins: tuple[str, ...] = (LOCAL_PAGES,)
    """Origins of web pages that may call the API (CORS)."""
    prefix_cache_isolation: PrefixCacheIsolation | None = None
    """Whether only requests of the same client share the prefix cache. ``None``: if there are keys."""
    shared_prefixes: tuple[Path, ...] = ()
    """Files with beginnings of prompts that all clients share in the prefix cache."""
    reload: bool = False
    """Whether plugins that are being developed are imported again when their files change."""
    watchdog: bool = True
    """Whether a plugin that blocks the event loop is interrupted."""
    sse_keep_alive: float = 10.0
    """Seconds without an event after which a stream sends its headers, or a comment; 0 means never."""
    reasoning_field: ReasoningField = "reasoning_content"
    """Field of a response that holds the reasoning."""
    response_role: str = "assistant"
    chat_template: Path | None = None
    chat_template_content_format: ContentFormat = "auto"
    default_chat_template_kwargs: Mapping[str, Any] = {}
    """Template variables; a request's ``chat_template_kwargs`` take precedence."""
    tool_call_parser: str | None = AUTO
    """Name of a parser. Without one, calls are in the server's own format."""
    reasoning_parser: str | None = AUTO
    exclude_tools_when_tool_choice_none: bool = True
    """Whether a request with ``tool_choice`` "none" leaves its tools out of the prompt."""
    enable_runtime_lora_loading: bool = False
    """Whether requests may load and unload LoRA adapters."""
    lora_dirs: tuple[Path, ...] = ()
    """Directories from which requests may load adapters."""
    enable_metrics: bool = False
    """Whether `/metrics` is mounted."""
    record: RecordConfig | None = None
    """Where to record what the models write."""
    enable_payload_logging: bool = False
    """Whether each request is written to the standard output with its body."""
    allowed_media_domains: tuple[str, ...] = ()
    """Hosts from which images may be fetched; ``*`` stands for all. Data URLs are always allowed."""
    max_images: int = MAX_IMAGES
    """Maximum number of images in one request."""
    max_body_bytes: int = 64 * 1024 * 1024
    """Maximum size of a request body; a longer one is rejected with 413."""
    max_body_memory: int = 512 * 1024 * 1024
    """Bytes that all request bodies hold together, received and decoded; others wait for their turn."""
    max_logprob_entries: int = 2**18
    """Maximum number of log-probabilities in a response, with alternatives; more are rejected with 400."""
    allow_special_tokens_in_text: bool = False
    """Whether special tokens in the text of messages are tokens. By default they are text."""
    trust_request_chat_template: bool = False
    """Whether a request may supply a ``chat_template``. A process with resource limits renders it."""
