"""Select the replica of a request: the one that has the fewest tokens to compute before its first output."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from msgspec import Struct

from fllm import GenerateRequest, ModelCard
from fllm.batching.block_hashes import BlockHasher, hash_root, request_namespace
from fllm_backends.replicas.assignment import Assignment
from fllm_backends.replicas.replica import Replica

HASHES_AT_ONCE = 256
"""Number of blocks to hash before other tasks run: about 0.5 ms."""
IMAGE_WORK = 256
"""Tokens that the preparation of images counts for, on a replica that has not prepared them."""


class RoutingWeights(Struct, frozen=True, kw_only=True):
    """What counts how much when a replica is selected: see docs/performance.md, Simulation."""

    prefill: float = 1
    """Weight of the tokens that a request itself leaves to prefill."""
    decode: float = 200
    """Tokens of prefill that each request of a replica counts for: all of them decode more slowly."""
    fair_share: float = 1.25
    """Factor of the mean number of requests that one replica may have."""
    free_requests: int = 8
    """Number of requests that a replica may have in addition."""

    def cost(self, replica: Replica, prefill: int) -> float:
        """Return what a request costs at a replica, where it leaves ``prefill`` tokens, in tokens."""
        return replica.queued_tokens + self.decode * replica.requests + self.prefill * prefill


WEIGHTS = RoutingWeights()


class Demand(Struct, frozen=True, kw_only=True):
    """What decides where a request is computed first."""

    tokens: int = 0
    """Number of tokens to compute before the first output."""
    hashes: Sequence[bytes] = ()
    """Hashes of the blocks that the engine looks up in its prefix cache."""
    block_size: int = 0
    adapter: int = 0
    """Id of the LoRA adapter, which the replica must have; 0 for none."""
    prepared_by: Replica | None = None
    """The replica that has prepared the images of the prompt, if it has any."""

    def prefill(self, replica: Replica) -> int:
        """Return how many tokens the replica would have to compute."""
        tokens = self.tokens - replica.count_cached(self.hashes) * self.block_size
        return tokens + IMAGE_WORK * (self.prepared_by not in (None, replica))


def select(
    candidates: Collection[Replica], demand: Demand, weights: RoutingWeights = WEIGHTS
) -> Assignment | None:
    """Assign a request to the replica where it is computed first; ``None`` if there is no candidate.

    That is where the tokens of its prompt that are not cached (weighted) and the work of earlier requests are
    least together.
    Equals take turns. Replicas that seem to hang are the last choice. A common prefix draws no more requests
    to a replica than `fair_load`.
    """
    candidates = [each for each in candidates if not each.stalled] or candidates
    if not candidates:
        return None
    limit = fair_load(sum(each.requests for each in candidates) + 1, len(candidates), weights)
    candidates = [each for each in candidates if each.requests < limit]
    prefills = {each: demand.prefill(each) for each in candidates}
    costs = {each: weights.cost(each, prefills[each]) for each in candidates}
    best = min(candidates, key=lambda each: (costs[each], each.requests, each.selected))
    return Assignment(best, prefills[best], demand.hashes)


def fair_load(requests: int, replicas: int, weights: RoutingWeights = WEIGHTS) -> float:
    """Return how many of the requests in flight one replica may have.

    As in consistent hashing with bounded loads (arXiv 1608.01350), but a few more are always allowed, because
    a batch of a few is hardly slower than one sequence.
    """
    return weights.fair_share * requests / replicas + weights.free_requests


class PromptHasher:
    """Hashes the full blocks of prompts as the engines of a model do."""

    def __init__(self, card: ModelCard) -> None:
        caches = card.runtime.get("enable_prefix_caching", False)
        self._block_size: int = card.runtime.get("block_size", 0) if caches else 0
        self._long_context_start = card.long_context_start
        self._latest: tuple[list[int], list[bytes]] = ([], [])
        """The latest prompt and its hashes: other sequences of the same request have the same list."""

    async def demand(self, request: GenerateRequest, prepared_by: Replica | None = None) -> Demand:
        """Return what the request demands of a replica."""
        return Demand(
            tokens=len(request.token_ids) + len(request.generated),
            hashes=await self._hash(request),
            block_size=self._block_size,
            adapter=request.adapter,
            prepared_by=prepared_by,
        )

    async def _hash(self, request: GenerateRequest) -> list[bytes]:
        """Return the hashes of the blocks that the engine looks up: those before the last token."""
        if not self._block_size or request.sampling.prompt_logprobs is not None:
            return []
        if request.token_ids is self._latest[0] and not request.generated:
            return self._latest[1]
        tokens = [*request.token_ids, *request.generated] if request.generated else request.token_ids
        hasher = self._hasher(request, len(tokens))
        count = (len(tokens) - 1) // self._block_size
        hashes: list[bytes] = []
        while len(hashes) < count:
            if hashes:
                await asyncio.sleep(0)
            hasher.extend(hashes, tokens, min(len(hashes) + HASHES_AT_ONCE, count))
        if not request.generated:
            self._latest = (request.token_ids, hashes)
        return hashes

    def _hasher(self, request: GenerateRequest, length: int) -> BlockHasher:
        is_long = self._long_context_start is not None and length > self._long_context_start
        root = hash_root(request.adapter, is_long=is_long)
        return BlockHasher(self._block_size, root, *request_namespace(request))
