"""Register the built-in backends, grammar backends and drafters. Each is imported only when it is chosen."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from fllm import BackendEntry, DrafterEntry, Entry, PlacementEntry, hookimpl
from fllm_backends.drafters.options import DraftModelOptions, NgramOptions, SuffixOptions
from fllm_backends.openai.options import OpenAIOptions
from fllm_backends.rngd.options import RngdOptions
from fllm_backends.torch.options import TorchOptions


class NoOptions(Struct, frozen=True):
    """There are none, so each is an error."""


@hookimpl
def fllm_backends() -> Iterator[BackendEntry]:
    """Register the built-in backends."""
    yield BackendEntry(
        "torch",
        "fllm_backends.torch.backend:torch_backend",
        "decoders, its own and those of transformers, on a CPU or an NVIDIA GPU",
        extra="torch",
        devices=("cuda", "cpu"),
        options=TorchOptions,
        divides_weights=True,
    )
    yield BackendEntry(
        "process",
        "fllm_backends.process:process_backend",
        "runs another backend in a child process and restarts it if it dies",
        isolated=False,
    )
    yield BackendEntry(
        "replicas",
        "fllm_backends.replicas:replicas_backend",
        "divides requests among several engines with the same model",
        isolated=False,
    )
    yield BackendEntry(
        "openai",
        "fllm_backends.openai.backend:openai_backend",
        "forwards requests to another OpenAI-compatible server",
        isolated=False,
        options=OpenAIOptions,
    )
    yield BackendEntry(
        "rngd",
        "fllm_backends.rngd.backend:rngd_backend",
        "FuriosaAI's RNGD through the vendor's own package",
        devices=("npu",),
        options=RngdOptions,
    )


@hookimpl
def fllm_placements() -> Iterator[PlacementEntry]:
    """Register the placement on this machine."""
    yield PlacementEntry(
        "local",
        "fllm.engine_host.local:LocalPlacement",
        "child processes of the server on its machine",
        options=NoOptions,
    )


@hookimpl
def fllm_grammars() -> Iterator[Entry]:
    """Register the grammar backends, which constrain the output."""
    yield Entry(
        "llguidance",
        "fllm_backends.grammars.llguidance:LLGuidance",
        "compiles a grammar during generation; forces what has no alternative",
        extra="torch",
    )
    yield Entry(
        "xgrammar",
        "fllm_backends.grammars.xgrammar.backend:XGrammar",
        "compiles a grammar before generation starts",
        extra="xgrammar",
    )


@hookimpl
def fllm_drafters() -> Iterator[DrafterEntry]:
    """Register the drafters of speculative decoding."""
    yield DrafterEntry(
        "ngram",
        "fllm_backends.drafters.ngram:NgramDrafter",
        "what followed the same tokens before, in the sequence itself",
        options=NgramOptions,
    )
    yield DrafterEntry(
        "suffix",
        "fllm_backends.drafters.suffix:SuffixDrafter",
        "what followed the longest match, also in earlier outputs of the client",
        options=SuffixOptions,
    )
    yield DrafterEntry(
        "draft_model",
        "fllm_backends.torch.draft_model:DraftModel",
        "a smaller model with the same vocabulary",
        extra="torch",
        options=DraftModelOptions,
    )


@hookimpl
def fllm_commands() -> Iterator[Entry]:
    """Yield the ``cache`` command."""
    yield Entry(
        "cache",
        "fllm_backends.checkpoints.cache_command:cache",
        "List and clear extracted files and kernels.",
    )
