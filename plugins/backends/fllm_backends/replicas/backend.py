"""The ``replicas`` backend: send each request to one of several engines, or to another if that ends."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import TypeVar

from msgspec.structs import replace

from fllm import (
    Backend,
    BackendConfig,
    BackendContext,
    BackendUnavailable,
    ConfigError,
    EngineOutput,
    EngineStats,
    GenerateRequest,
    LoraAdapter,
    ModelCard,
    PoolingBackend,
    PoolingOutput,
    PoolingRequest,
    PreparedImages,
    PreparesImages,
    ReplicaStats,
    RequestError,
)
from fllm_backends.replicas.assignment import Assignment
from fllm_backends.replicas.attempts import Attempts
from fllm_backends.replicas.fleet import Fleet
from fllm_backends.replicas.images import ImageFiles, PromptFiles
from fllm_backends.replicas.replica import Replica
from fllm_backends.replicas.resumption import Resumption
from fllm_backends.replicas.routing import IMAGE_WORK, Demand, PromptHasher

T = TypeVar("T")

SEED_BITS = 63


def replicas_backend(config: BackendConfig, context: BackendContext) -> Backend:
    """Return a backend of several instances of the next backend of ``config.chain``."""
    if not config.chain:
        raise ConfigError("the backend 'replicas' wraps another backend: name one after it")
    return ReplicasBackend(config, context)


class ReplicasBackend:
    """Sends requests where they are computed first, by the prefix caches and the work of replicas."""

    def __init__(self, config: BackendConfig, context: BackendContext) -> None:
        self.fleet = Fleet(config, context)
        self._config = config
        self._seeds = random.SystemRandom() if config.seed is None else random.Random(config.seed)
        self._files = ImageFiles()
        self._resumes = False
        self._hasher: PromptHasher

    async def start(self) -> ModelCard:
        """Start all replicas and return the model card. Raise the error of one that does not start."""
        card = await self.fleet.start(self._config.replicas)
        self._hasher = PromptHasher(card)
        self._resumes = self._config.resume and card.resumes
        return card

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        """Yield the outputs of a replica. If its engine ends, another one continues.

        Raise `BackendUnavailable` if no replica is available for a while, `BackendError` if the request
        seems to end every engine that it meets.
        """
        resumption = Resumption(self._with_seed(request))
        files = self._files.get(request.images)
        attempts = Attempts(self.fleet)
        while True:
            assignment = await attempts.assign(
                await self._hasher.demand(resumption.request, files.replica if files else None)
            )
            try:
                async with aclosing(assignment.replica.backend.generate(resumption.request)) as outputs:
                    async for output in outputs:
                        if not assignment.started:
                            output = replace(output, replica=assignment.replica.name)
                        assignment.record_output(len(output.token_ids))
                        resumption.record(output)
                        yield output
                return
            except BackendUnavailable as error:
                if resumption.started and not self._resumes:
                    raise
                if assignment.engine_ended:
                    assignment.replica.record_loss(started=resumption.started)
                if not await self._prepare_again(files, assignment, request.client):
                    attempts.record_failure(assignment, error)
            finally:
                assignment.end()

    async def pool(self, request: PoolingRequest) -> PoolingOutput:
        """Return the vectors that a replica computes. If its engine ends, ask another one."""

        async def pool(replica: Replica) -> PoolingOutput:
            if not isinstance(replica.backend, PoolingBackend):
                raise RequestError("this backend does not pool", param="model")
            return await replica.backend.pool(request)

        _, output = await self._call(pool, sum(len(each.token_ids) for each in request.inputs))
        return output

    async def prepare_images(self, images: Sequence[bytes], client: str) -> PreparedImages:
        """Let a replica prepare images, and keep the files for other replicas."""
        replica, prepared = await self._call(partial(_prepare, images=images, client=client), IMAGE_WORK)
        self._files.put(prepared, images, replica)
        return prepared

    def list_replicas(self) -> Sequence[ReplicaStats]:
        """Return what is known about each replica."""
        return [replica.report() for replica in self.fleet]

    def drain_replica(self, name: str) -> ReplicaStats:
        """Send no more requests to a replica, and return its state."""
        return self.fleet.drain(name).report()

    def resume_replica(self, name: str) -> ReplicaStats:
        """Send requests to a drained replica again, and return its state."""
        return self.fleet.resume(name).report()

    async def load_adapter(self, adapter: LoraAdapter) -> None:
        """Load an adapter into all replicas, also into those that start later."""
        await self.fleet.adapters.load(adapter, self.fleet)

    async def unload_adapter(self, adapter_id: int) -> None:
        """Unload an adapter of all replicas."""
        await self.fleet.adapters.unload(adapter_id, self.fleet)

    async def status(self) -> EngineStats:
        """Return the sums over all replicas; raise `BackendUnavailable` if none is ready."""
        return await self.fleet.status()

    async def stop(self) -> None:
        """Stop all replicas. Requests in flight end with `BackendUnavailable`."""
        await self.fleet.stop()

    def _with_seed(self, request: GenerateRequest) -> GenerateRequest:
        """Set the seed, so that another engine draws the same random numbers."""
        if request.sampling.seed is not None:
            return request
        sampling = replace(request.sampling, seed=self._seeds.getrandbits(SEED_BITS))
        return replace(request, sampling=sampling)

    async def _call(self, method: Callable[[Replica], Awaitable[T]], tokens: int) -> tuple[Replica, T]:
        """Return a replica and what it returns. If its engine ends, call another one."""
        attempts = Attempts(self.fleet)
        while True:
            assignment = await attempts.assign(Demand(tokens=tokens))
            try:
                result = await method(assignment.replica)
                assignment.record_output()
                return assignment.replica, result
            except BackendUnavailable as error:
                attempts.record_failure(assignment, error)
            finally:
                assignment.end()

    async def _prepare_again(self, files: PromptFiles | None, assignment: Assignment, client: str) -> bool:
        """Prepare the images of a request on its replica. Return whether that is a reason to try again."""
        replica = assignment.replica
        if files is None or files.replica is replica or assignment.started or assignment.engine_ended:
            return False
        try:
            await _prepare(replica, files.files, client)
        except BackendUnavailable:
            return False
        files.replica = replica
        return True


async def _prepare(replica: Replica, images: Sequence[bytes], client: str) -> PreparedImages:
    if not isinstance(replica.backend, PreparesImages):
        raise RequestError("the model accepts text only", param="messages")
    return await replica.backend.prepare_images(images, client)
