"""Options of the engine, of its replicas and of their connections."""

from __future__ import annotations

from functools import partial
from typing import get_args

import rich_click as click

from fllm_api.cli.options.values import FILE, POSITIVE, SECONDS
from fllm_api.cli.param_types import (
    Devices,
    HostPort,
    Integer,
    KeyValue,
    NewDirectory,
    RegisteredName,
    Size,
    SpeculativeConfig,
)
from fllm_api.config import PrefixCacheIsolation

SPECULATION_EXAMPLE = '{"method": "ngram", "num_speculative_tokens": 5}'
NO_GRAMMAR = "none"
"""Value of ``--grammar-backend`` that disables structured output."""

DEFAULT_GRAMMAR = "llguidance"

_engine = partial(click.RichOption, panel="Engine")

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
        help="Option of the backend, such as kv_cache_memory=2GiB. `furiosa-llm plugins show BACKEND` "
        "lists them.",
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
        show_default=DEFAULT_GRAMMAR,
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
        type=NewDirectory(),
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
        type=SpeculativeConfig(SPECULATION_EXAMPLE),
        show_default="none",
        help="Speculative decoding: ngram, suffix, draft_model or the drafter of a plugin, "
        f"such as {SPECULATION_EXAMPLE}.",
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
