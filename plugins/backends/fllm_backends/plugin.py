"""Our backends and grammar backends, named; none is imported until it is chosen."""

from __future__ import annotations

from collections.abc import Iterator

from fllm import BackendEntry, Entry, hookimpl
from fllm_backends.openai.options import OpenAIOptions
from fllm_backends.rngd.options import RngdOptions
from fllm_backends.torch.options import TorchOptions


@hookimpl
def fllm_backends() -> Iterator[BackendEntry]:
    """The torch backend, and the process that holds any other."""
    yield BackendEntry(
        "torch",
        "fllm_backends.torch.backend:torch_backend",
        "decoders of the Llama family, on a cpu or an NVIDIA GPU",
        devices=("cuda", "cpu"),
        options=TorchOptions,
    )
    yield BackendEntry(
        "process",
        "fllm_backends.process:process_backend",
        "holds another backend in a process of its own, and starts it again if it dies",
        isolated=False,
    )
    yield BackendEntry(
        "openai",
        "fllm_backends.openai.backend:openai_backend",
        "fronts another OpenAI-compatible server, which keeps the engine",
        isolated=False,
        options=OpenAIOptions,
    )
    yield BackendEntry(
        "rngd",
        "fllm_backends.rngd.backend:rngd_backend",
        "FuriosaAI's RNGD, driven by the vendor's own package",
        devices=("npu",),
        options=RngdOptions,
    )


@hookimpl
def fllm_grammars() -> Iterator[Entry]:
    """What keeps answers to a constraint."""
    yield Entry("xgrammar", "fllm_backends.grammars.xgrammar:XGrammar", "compiles all of it at once")
    yield Entry(
        "llguidance", "fllm_backends.grammars.llguidance:LLGuidance", "compiles as it goes (an extra)"
    )
