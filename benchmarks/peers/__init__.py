"""Other engines to compare with: each is installed, serves the same weights, and gives its logits."""

from .peer import MODEL, Peer, Setup, Unavailable

__all__ = ["MODEL", "PEERS", "Peer", "Setup", "Unavailable"]

PEERS: dict[str, type[Peer]] = {}
"""All peers by their kind: ``PEERS["llama.cpp"](setup, "Q8_0")``."""
