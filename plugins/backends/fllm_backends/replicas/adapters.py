"""The LoRA adapters that all replicas serve, also those that start later."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from fllm import BackendUnavailable, FllmError, LoraAdapter, ServesAdapters, UserError
from fllm.errors import ModelNotFound
from fllm_backends.replicas.replica import Replica

log = logging.getLogger("fllm.replicas")


class Adapters:
    """Loads and unloads adapters everywhere. A replica that is down does so when it is ready again."""

    def __init__(self, adapters: Iterable[LoraAdapter]) -> None:
        self._adapters = {adapter.id: adapter for adapter in adapters}
        self._updating: set[Replica] = set()

    async def load(self, adapter: LoraAdapter, replicas: Iterable[Replica]) -> None:
        """Load an adapter into the replicas that are ready. If one refuses it, unload it and raise the error.

        Raise `BackendUnavailable` if no replica could load it.
        """
        ready = [each for each in replicas if each.ready]
        if not ready:
            raise BackendUnavailable("no replica is available")
        results = await asyncio.gather(*(_load(adapter, each) for each in ready), return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        refusals = [error for error in errors if not isinstance(error, BackendUnavailable)]
        if refusals or len(errors) == len(ready):
            await self.unload(adapter.id, ready)
            raise (refusals or errors)[0]
        self._adapters[adapter.id] = adapter

    async def unload(self, adapter_id: int, replicas: Iterable[Replica]) -> None:
        """Unload an adapter. Replicas that can't do it now are left to `update`."""
        self._adapters.pop(adapter_id, None)
        await asyncio.gather(*(_unload(adapter_id, each) for each in replicas if each.ready))

    def differ(self, replica: Replica) -> bool:
        """Return whether the replica has other adapters than it should have, and no `update` runs."""
        wanted = self._adapters.keys() - replica.failed_adapters
        return replica not in self._updating and replica.adapters != wanted

    async def update(self, replica: Replica) -> None:
        """Load into a replica what was loaded while it was not ready, and unload what was unloaded."""
        self._updating.add(replica)
        try:
            await self._update(replica)
        finally:
            self._updating.remove(replica)

    async def _update(self, replica: Replica) -> None:
        for adapter_id in replica.adapters - self._adapters.keys():
            await _unload(adapter_id, replica)
        loaded = replica.adapters | replica.failed_adapters
        for adapter in [each for each in self._adapters.values() if each.id not in loaded]:
            try:
                await _load(adapter, replica)
            except BackendUnavailable:  # `differ` is still true when it is ready again
                return
            except FllmError as error:
                replica.failed_adapters.add(adapter.id)
                log.error("replica %s: the adapter %s can't be loaded: %s", replica.name, adapter.name, error)


async def _load(adapter: LoraAdapter, replica: Replica) -> None:
    if not isinstance(replica.backend, ServesAdapters):
        raise UserError("this backend can't apply LoRA adapters")
    await replica.backend.load_adapter(adapter)
    replica.adapters.add(adapter.id)


async def _unload(adapter_id: int, replica: Replica) -> None:
    if adapter_id not in replica.adapters or not isinstance(replica.backend, ServesAdapters):
        return
    try:
        await replica.backend.unload_adapter(adapter_id)
    except ModelNotFound:  # it could not be loaded again after a restart
        pass
    except BackendUnavailable:
        return
    replica.adapters.discard(adapter_id)
