"""Options of the HTTP server: address, keys, limits."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import rich_click as click
from msgspec import Meta

from fllm_api.cli.options.values import FILE, POSITIVE, SECONDS
from fllm_api.cli.param_types import Integer, Json, KeyValue, NonEmptyText, Origins, UrlPrefix
from fllm_api.cli.secrets import hash_keys
from fllm_api.cors import LOCAL_PAGES

_http = partial(click.RichOption, panel="HTTP")

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
        ["--data-dir"],
        type=click.Path(file_okay=False, path_type=Path),
        show_default="~/.local/state/furiosa-llm",
        help="Private directory for what the server stores, such as responses.",
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
        type=KeyValue("[OWNER.]KEY=VALUE"),
        multiple=True,
        show_default="none",
        help="Limit per client: concurrency=N (sequences in flight) or tokens-per-minute=N. "
        "OWNER.tokens-per-minute=N: of one owner of --api-key-file.",
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
