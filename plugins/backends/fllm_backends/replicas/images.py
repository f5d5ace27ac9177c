"""The image files of prompts, until another replica than the one that prepared them may need them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from msgspec import Struct

from fllm import PreparedImages
from fllm_backends.replicas.replica import Replica

MAX_BYTES = 256 << 20
"""Files to keep, besides those of requests in flight."""


class PromptFiles(Struct, eq=False):
    """The image files of one prompt."""

    files: Sequence[bytes]
    replica: Replica
    """The last replica that prepared them."""


class ImageFiles:
    """Keeps the files of the latest prompts by the keys of their images."""

    def __init__(self) -> None:
        self._prompts: OrderedDict[tuple[str, ...], PromptFiles] = OrderedDict()
        self._bytes = 0

    def put(self, images: PreparedImages, files: Sequence[bytes], replica: Replica) -> None:
        """Keep the files that a replica has prepared."""
        earlier = self._prompts.pop(images.keys, None)
        if earlier is None:
            self._bytes += sum(map(len, files))
        self._prompts[images.keys] = PromptFiles(files, replica)
        while self._bytes > MAX_BYTES and len(self._prompts) > 1:
            _, oldest = self._prompts.popitem(last=False)
            self._bytes -= sum(map(len, oldest.files))

    def get(self, keys: tuple[str, ...]) -> PromptFiles | None:
        """Return the files of a request with these `GenerateRequest.images`, if they are still there."""
        return self._prompts.get(keys) if keys else None
