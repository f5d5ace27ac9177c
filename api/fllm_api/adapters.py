"""The LoRA adapters that requests may choose as their model. They can be loaded while the server runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from fllm.config import LoraAdapter
from fllm.errors import BackendUnavailable, ModelNotFound, RequestError, UserError
from fllm.interfaces import NO_ADAPTERS, Backend, ServesAdapters

USUAL_TAG = ":latest"
"""What clients of Ollama add to the name of a model that has no tag."""

log = logging.getLogger("fllm.server")


class AdapterRegistry:
    """The loaded adapters by name."""

    def __init__(
        self,
        backend: Backend | None = None,
        loaded: Sequence[LoraAdapter] = (),
        *,
        model: str | None = None,
        model_names: Collection[str] = (),
        directories: Sequence[Path] = (),
    ) -> None:
        self._backend = backend
        self._adapters = {adapter.name: adapter for adapter in loaded}
        self._model_names = model_names
        self.model = model
        """Where the model itself comes from, if adapters are enabled; else ``None``."""
        self._directories = [directory.resolve() for directory in directories]
        """Where adapters that are loaded later must be."""
        self._last_id = max((adapter.id for adapter in loaded), default=0)
        self._unloaded: set[str] = set()
        """Names of adapters that were unloaded: they never stand for the model itself."""
        self._changes = asyncio.Lock()

    def attach(self, backend: Backend | None) -> None:
        """Use the backend of a model that was loaded again, with these adapters; ``None``: it is unloaded."""
        self._backend = backend

    @property
    def loaded(self) -> Sequence[LoraAdapter]:
        """The adapters, in the order in which they were loaded."""
        return tuple(self._adapters.values())

    def find(self, model: str | None) -> LoraAdapter | None:
        """Return the adapter of this name, or ``None`` for the model itself, which has any other name.

        Clients of Ollama may add `USUAL_TAG`. Raise `ModelNotFound` if the adapter was unloaded.
        """
        for name in (model or "", (model or "").removesuffix(USUAL_TAG)):
            if name in self._unloaded:
                raise ModelNotFound(f"the LoRA adapter {name!r} was unloaded")
            if (adapter := self._adapters.get(name)) is not None:
                return adapter
        return None

    async def load(self, name: str, path: str, *, in_place: bool = False) -> None:
        """Load an adapter. With ``in_place`` it replaces one of the same name, after its last request.

        Raise `RequestError` if the name or the path is not allowed, or the adapter is invalid.
        """
        backend = self._serving_backend()
        async with self._changes:
            self._check_name(name, in_place=in_place)
            directory = await asyncio.to_thread(self._resolve, path)
            self._last_id += 1
            adapter = LoraAdapter(id=self._last_id, name=name, path=str(directory))
            try:
                await backend.load_adapter(adapter)
            except UserError as error:
                raise RequestError(error.message, param="lora_path") from error
            replaced, self._adapters[name] = self._adapters.get(name), adapter
            self._unloaded.discard(name)
            log.info("the LoRA adapter %r is loaded: %s", name, directory)
            if replaced:
                with suppress(
                    ModelNotFound, BackendUnavailable
                ):  # of an engine that lost it, or is restarted
                    await backend.unload_adapter(replaced.id)

    async def unload(self, name: str) -> None:
        """Unload an adapter: new requests are rejected, and its memory is freed after the last one.

        Raise `ModelNotFound` if it is not loaded.
        """
        async with self._changes:
            adapter = self._adapters.get(name)
            if adapter is None:
                raise ModelNotFound(f"the LoRA adapter {name!r} is not loaded", param="lora_name")
            if self._backend is not None:  # else the model is not loaded now, and will be without it
                with suppress(ModelNotFound):  # of an engine that was restarted and could not load it again
                    await self._serving_backend().unload_adapter(adapter.id)
            del self._adapters[name]
            self._unloaded.add(name)
            log.info("the LoRA adapter %r is unloaded", name)

    def _serving_backend(self) -> ServesAdapters:
        backend: object = self._backend
        if not isinstance(backend, ServesAdapters):
            raise RequestError(NO_ADAPTERS)
        return backend

    def _check_name(self, name: str, *, in_place: bool) -> None:
        if name in self._model_names:
            raise RequestError(f"{name!r} is a name of the model itself", param="lora_name")
        if name in self._adapters and not in_place:
            raise RequestError(
                f"the LoRA adapter {name!r} has already been loaded: unload it first, or replace it with "
                "`load_inplace`: true",
                param="lora_name",
            )

    def _resolve(self, path: str) -> Path:
        """Return the directory without symbolic links. It must exist inside of an allowed one."""
        try:
            directory = Path(path).resolve()
            if any(map(directory.is_relative_to, self._directories)):
                if directory.is_dir():
                    return directory
                raise ModelNotFound(f"{path!r} is not a directory with a LoRA adapter", param="lora_path")
        except (OSError, ValueError, RuntimeError):  # too long, a null character, a loop of links
            pass
        raise RequestError(
            f"{path!r} is not inside of a directory that adapters may be loaded from (--lora-dir)",
            param="lora_path",
        )
