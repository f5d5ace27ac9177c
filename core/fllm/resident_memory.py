"""Give memory back to the system that starting has used and serving does not need."""

from __future__ import annotations

import ctypes
import mmap
import re
from collections.abc import Iterator
from pathlib import Path

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (?:r-[x-]p .*\.so(?:\.[0-9.]+)?|r[w-]-p .*\.safetensors)\n")
"""What is read of libraries, and weights. Other threads may write to the data of a library."""
_SMAPS = Path("/proc/self/smaps")


def return_freed_memory() -> None:
    """Give memory that was freed back to the system. glibc keeps up to 64 MiB for each thread."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def unmap_idle_files() -> None:
    """Unmap the pages of libraries, most of which only a start reads, and of safetensors files.

    They stay in the page cache of the system: the first use of one maps it again, in about a microsecond.
    Files of which a page was changed stay mapped, such as parts of libraries by the dynamic linker.
    """
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise is None or not hasattr(mmap, "MADV_DONTNEED"):
        return
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    for start, end in _unchanged_mappings():
        madvise(start, end - start, mmap.MADV_DONTNEED)


def _unchanged_mappings() -> Iterator[tuple[int, int]]:
    """Yield the addresses of private mappings without a changed page; none without /proc."""
    try:
        content = _SMAPS.read_text()
    except OSError:
        return
    for mapping in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", content):
        if (found := _MAPPING.match(mapping)) and re.search(r"^Anonymous: +0 kB$", mapping, re.MULTILINE):
            yield int(found[1], 16), int(found[2], 16)
