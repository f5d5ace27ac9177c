"""Who shares the blocks of the prefix cache: the salt of a request, and the tokens that ignore it."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import compress, count
from operator import ne

from msgspec.structs import replace

from fllm.pipeline.pipeline import PipelineRequest
from fllm_api.app_state import AppState


def separate_clients(request: PipelineRequest, server: AppState) -> PipelineRequest:
    """Add the client to the salt of a request, if clients are isolated.

    No client can know or choose the salt of another, because it depends on a secret of the server.
    """
    if not server.isolates_clients:
        return request
    client_key = blake2b(request.client.encode(), key=server.cache_secret, digest_size=32).digest()
    salt = blake2b(request.cache_salt.encode(), key=client_key, digest_size=32).hexdigest()
    return replace(request, cache_salt=salt)


def count_shared_tokens(prompts: Sequence[Sequence[int]], server: AppState) -> tuple[int, ...]:
    """Return how many first tokens each prompt has in common with a prefix that the operator made public.

    Return nothing without such a prefix.
    """
    if server.shared_prefixes is None:
        return ()
    prefixes = server.shared_prefixes()
    return tuple(max(common_length(prompt, prefix) for prefix in prefixes) for prompt in prompts)


def common_length(left: Sequence[int], right: Sequence[int]) -> int:
    """Return the number of first tokens that two prompts have in common."""
    return next(compress(count(), map(ne, left, right)), min(len(left), len(right)))
