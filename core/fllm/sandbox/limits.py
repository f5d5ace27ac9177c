"""Resource limits of one task in a child process."""

from __future__ import annotations

from msgspec import Struct


class ResourceLimits(Struct, frozen=True, kw_only=True):
    """The limits of one task, and the words that its error messages use."""

    subject: str
    """What the task processes, such as "the grammar"."""
    activity: str
    """What the task does with it, such as "compiling"."""
    cpu_seconds: float
    """Maximum CPU time, which does not depend on how busy the machine is."""
    wall_seconds: float
    """Maximum duration, for a task that waits without computing."""
    memory: int
    """Maximum address space in bytes, in addition to what the process uses when it is ready."""
    output: int
    """Maximum size of the result in bytes."""
    allow_files: bool = True
    """Whether the task may open files for reading."""

    def too_slow(self, seconds: float) -> str:
        """Return the message for a task that exceeded a time limit."""
        return f"{self.too_complex}: {self.activity} it takes more than {seconds:g} s"

    @property
    def too_large(self) -> str:
        """Message for a task that exceeded the memory limit."""
        return f"{self.too_complex}: {self.activity} it takes too much memory"

    @property
    def too_complex(self) -> str:
        """Message for a task that failed without a known reason."""
        return f"{self.subject} is too complex"
