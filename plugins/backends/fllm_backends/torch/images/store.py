"""The images of prompts between their preparation and the forward pass that reads them."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from torch import Tensor

from fllm.errors import BackendUnavailable

MAX_STORED_BYTES = 256 << 20
"""Prepared images that no request holds, for the next turn of a conversation."""
MAX_BYTES = 1 << 30
"""All prepared images, those of waiting and running requests included."""

Keys = tuple[str, ...]


class ProcessedImages(Struct, frozen=True, weakref=True, eq=False):
    """The images of one prompt, as the model takes them."""

    texts: tuple[str, ...]
    """Text that replaces the placeholder of each image."""
    inputs: Mapping[str, Any]
    """Keyword arguments of the model: ``pixel_values`` and what else its processor returns."""

    @property
    def size(self) -> int:
        """Number of bytes of the tensors."""
        tensors = (value for value in self.inputs.values() if isinstance(value, Tensor))
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class ImageStore:
    """Keeps prepared images by the keys of their files. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stored: OrderedDict[Keys, ProcessedImages] = OrderedDict()
        self._stored_bytes = 0
        self._all_bytes = 0

    def get(self, keys: Keys) -> ProcessedImages | None:
        """Return the prepared images, if they are still there."""
        with self._lock:
            if (images := self._stored.get(keys)) is not None:
                self._stored.move_to_end(keys)
            return images

    def put(self, keys: Keys, images: ProcessedImages) -> None:
        """Store prepared images. Raise `BackendUnavailable` if requests hold too many already."""
        size = images.size
        with self._lock:
            while self._stored and self._stored_bytes + size > MAX_STORED_BYTES:
                _, evicted = self._stored.popitem(last=False)
                self._stored_bytes -= evicted.size
                del evicted
            if self._all_bytes + size > MAX_BYTES:
                raise BackendUnavailable("too many images wait for the model: try again later")
            self._all_bytes += size
            self._stored_bytes += size
            self._stored[keys] = images
        weakref.finalize(images, self._release, size).atexit = False

    def _release(self, size: int) -> None:
        # May run in any thread at any moment, also in one that holds the lock; an addition needs none.
        self._all_bytes -= size
