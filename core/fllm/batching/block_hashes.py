"""The hashes of KV blocks, by which the prefix cache finds them.

The engine computes them, and also a backend that sends each request to the engine that has its prefix.
"""

from __future__ import annotations

from array import array
from collections import abc
from hashlib import blake2b

from msgspec import Struct

from fllm.values import GenerateRequest


def hash_block(parent: bytes, token_ids: abc.Iterable[int]) -> bytes:
    """Return the hash of a full block: it identifies its tokens and, through its parent, all tokens before.

    The hash is cryptographic, because a client that could make two prompts collide could read the KV of
    another client's prompt.
    """
    return blake2b(parent + array("q", token_ids).tobytes(), digest_size=32).digest()


def hash_namespace(name: str, images: abc.Sequence[str] = ()) -> bytes:
    """Return a hash that is never that of a block, whatever name a client chooses; ``b""`` for no name.

    Nor is that of a name with images ever that of another name, whatever it contains.
    """
    if images:
        name = "\0".join((str(len(images)), *images, name))
        return blake2b(name.encode(), digest_size=32, person=b"images").digest()
    return blake2b(name.encode(), digest_size=32, person=b"namespace").digest() if name else b""


def hash_root(adapter: int, *, is_long: bool) -> bytes:
    """Return what precedes the first block of a sequence whose keys and values are not the usual ones."""
    name = b"%d%s" % (adapter, b" long" if is_long else b"")
    return blake2b(name, digest_size=32, person=b"root").digest() if adapter or is_long else b""


def request_namespace(request: GenerateRequest) -> tuple[bytes, int]:
    """Return what the hashes of a request's blocks begin with, and how many tokens are outside of that.

    Requests with the same salt and images share blocks. The tokens of an image are the same for all images.
    """
    return hash_namespace(request.cache_salt, request.images), request.shared_tokens


class BlockHasher(Struct, frozen=True):
    """Hashes the blocks of one sequence."""

    block_size: int
    root: bytes = b""
    """Precedes the first block: see `hash_root`."""
    namespace: bytes = b""
    """Mixed into the hash of the first private block, and so into all that follow."""
    shared_tokens: int = 0
    """Number of first tokens whose full blocks are outside of the namespace."""

    def extend(self, hashes: list[bytes], token_ids: abc.Sequence[int], count: int) -> None:
        """Append to the hashes of the first blocks until there are ``count``. All of them must be full."""
        size = self.block_size
        while (index := len(hashes)) < count:
            parent = hashes[-1] if index else self.root
            if index == self.shared_tokens // size:
                parent += self.namespace
            hashes.append(hash_block(parent, token_ids[index * size : (index + 1) * size]))
