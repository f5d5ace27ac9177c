"""The extras of the distribution: packages that only some features need, and how to install them."""

from __future__ import annotations

from importlib.util import find_spec

from fllm.errors import ConfigError

DISTRIBUTION = "furiosa-llm-server"
EXTRAS = {
    "torch": ("torch", "transformers", "numba", "numpy", "llguidance", "gguf", "safetensors", "PIL"),
    "images": ("num2words",),
    "otel": ("opentelemetry",),
    "plot": ("matplotlib",),
    "ray": ("ray",),
    "testing": ("hypothesis", "pytest"),
    "xgrammar": ("xgrammar",),
}
"""The top-level modules that each extra of ``pyproject.toml`` adds."""


def install_command(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def missing_modules(extra: str) -> list[str]:
    """Return the modules of an extra that are not installed."""
    return [module for module in EXTRAS[extra] if not _is_installed(module)]


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # something replaced or hides it
        return False


def require_extra(extra: str, clause: str) -> None:
    """Raise `ConfigError` if an extra is not installed, with the command for it.

    ``clause`` is the beginning of the message, such as "--plot needs matplotlib".
    """
    if missing_modules(extra):
        raise ConfigError(f"{clause}: {install_command(extra)}")


def missing_extra(error: BaseException) -> str | None:
    """Return one line for an import of a module that an extra adds; ``None`` for another error."""
    if not isinstance(error, ModuleNotFoundError):
        return None
    module = (error.name or "").partition(".")[0]
    extra = next((extra for extra, modules in EXTRAS.items() if module in modules), None)
    return None if extra is None else f"{module!r} is not installed: {install_command(extra)}"
