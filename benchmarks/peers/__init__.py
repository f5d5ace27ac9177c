"""Other engines to compare with: each is installed, serves the same weights, and gives its logits."""

from .environment import stop
from .llama_cpp import LlamaCpp
from .onnxruntime_genai import OnnxRuntimeGenAI
from .openvino_genai import OpenVinoGenAI
from .peer import MODEL, Peer, Setup, Unavailable
from .vllm_cpu import VllmCpu

__all__ = ["MODEL", "PEERS", "Peer", "Setup", "Unavailable", "stop"]

PEERS: dict[str, type[Peer]] = {
    peer.kind: peer for peer in (LlamaCpp, OpenVinoGenAI, VllmCpu, OnnxRuntimeGenAI)
}
"""All peers by their kind: ``PEERS["llama.cpp"](setup, "Q8_0")``."""
