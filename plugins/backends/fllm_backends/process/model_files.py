"""The small files of a model that the server reads: an engine on another machine sends them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from fllm_backends.process.messages import FILE_NAME, MAX_FILES, MAX_RESULT_BYTES, ModelFile

PATTERNS = ("tokenizer*.json", "*.jinja", "additional_chat_templates/*.jinja", "*.json")
"""The tokenizer, chat templates, and what tells plugins which model it is; the most important first."""
LEFT_OUT = ".index.json"
"""End of the names of files that only list tensors."""
PART_BYTES = 4 << 20
"""Size of the parts in which a file is sent."""

log = logging.getLogger("fllm.engine")


def read_parts(directory: Path) -> Iterator[ModelFile]:
    """Yield the files of a directory, in parts, as many as the server takes."""
    room, files = MAX_RESULT_BYTES, 0
    for file in dict.fromkeys(chain.from_iterable(sorted(directory.glob(each)) for each in PATTERNS)):
        name = file.relative_to(directory).as_posix()
        if name.endswith(LEFT_OUT) or not re.search(FILE_NAME, name) or not file.is_file():
            continue
        content = file.read_bytes() if file.stat().st_size <= room else None
        if content is None or files == MAX_FILES:
            log.warning("the server does not receive %s: the files of the model are too large or many", file)
            continue
        room, files = room - len(content), files + 1
        for start in range(0, len(content) or 1, PART_BYTES):
            yield ModelFile(name, content[start : start + PART_BYTES])
