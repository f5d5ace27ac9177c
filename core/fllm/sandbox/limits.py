"""How much a piece of work may take."""

from __future__ import annotations

from msgspec import Struct


class ResourceLimits(Struct, frozen=True, kw_only=True):
    """Of one piece of work, and how to speak of it: ``doing`` (compiling) a ``subject`` (the grammar)."""

    subject: str
    doing: str
    cpu_seconds: float
    """Of computing, however busy the machine is."""
    wall_seconds: float
    """For one that waits without computing."""
    memory: int
    """Bytes of address space beyond what the process has when it is ready."""
    output: int
    """Bytes of a result."""
    files: bool = True
    """It may open some."""

    def too_slow(self, seconds: float) -> str:
        """Why it was ended."""
        return f"{self.too_complex}: {self.doing} it takes more than {seconds:g} s"

    @property
    def too_large(self) -> str:
        """Why it was ended."""
        return f"{self.too_complex}: {self.doing} it takes too much memory"

    @property
    def too_complex(self) -> str:
        """Why it was ended, where nobody knows more."""
        return f"{self.subject} is too complex"
