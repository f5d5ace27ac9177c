"""What a request asks for: the model, the system prompt, sampling settings, tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from fllm.errors import ConfigError


class Sampling(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Sampling settings. Those that are not set are the server's."""

    temperature: Annotated[float, Meta(ge=0)] | UnsetType = UNSET
    top_p: Annotated[float, Meta(gt=0, le=1)] | UnsetType = UNSET
    top_k: int | UnsetType = UNSET
    min_p: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET
    repetition_penalty: Annotated[float, Meta(gt=0)] | UnsetType = UNSET
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | UnsetType = UNSET
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | UnsetType = UNSET
    max_tokens: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    seed: int | UnsetType = UNSET
    stop: str | UnsetType = UNSET
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | UnsetType = UNSET

    def fields(self) -> dict[str, Any]:
        """Return the settings that are set, as fields of a request."""
        return {name: value for name in NAMES if (value := getattr(self, name)) is not UNSET}

    def change(self, name: str, value: str) -> None:
        """Set one setting from its text; an empty text unsets it. Raise `ConfigError` if it is invalid."""
        if name not in NAMES:
            raise ConfigError(f"there is no setting {name!r}; the settings are {', '.join(NAMES)}")
        fields = self.fields()
        fields.pop(name, None)
        if value:
            fields[name] = value
        try:
            changed = msgspec.convert(fields, Sampling, strict=False)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{name}: {str(error).partition(' - at')[0]}") from error
        setattr(self, name, getattr(changed, name))


NAMES = Sampling.__struct_fields__


class Settings(Struct, kw_only=True):
    """What every request of a conversation has."""

    model: str
    system: str = ""
    sampling: Sampling = msgspec.field(default_factory=Sampling)
    tools: list[dict[str, Any]] = []
    response_format: dict[str, Any] | None = None

    def fields(self) -> dict[str, Any]:
        """Return the fields of a request, except its messages."""
        fields: dict[str, Any] = {"model": self.model, **self.sampling.fields()}
        if self.tools:
            fields["tools"] = self.tools
        if self.response_format:
            fields["response_format"] = self.response_format
        return fields


def read_tools(path: Path) -> list[dict[str, Any]]:
    """Return the tools of a JSON file: a list of OpenAI's tools, or of bare function definitions.

    Raise `ConfigError` if it is none.
    """
    tools = _read_json(path)
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise ConfigError(f"{path}: the tools must be a JSON array of objects")
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]


def read_schema(path: Path) -> dict[str, Any]:
    """Return the ``response_format`` for a JSON Schema in a file. Raise `ConfigError` if it is none."""
    schema = _read_json(path)
    if not isinstance(schema, dict):
        raise ConfigError(f"{path}: a JSON Schema must be an object")
    return {"type": "json_schema", "json_schema": {"name": "response", "schema": schema, "strict": True}}


def _read_json(path: Path) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
