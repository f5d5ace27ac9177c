"""Routes that describe the models, from what `/v1/models` reports: `/api/tags`, `/api/show`, `/api/ps`."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import msgspec
from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody
from msgspec import Struct

from fllm import ANY_CONTENT_TYPE, ModelNotFound, RunningServer, error_body
from fllm_dialects.ollama.encoder import timestamp
from fllm_dialects.ollama.errors import ollama_error

VERSION = "0.12.11"
"""The version of Ollama whose chats and completions these routes offer. Some clients require a minimum."""


class ModelDetails(Struct, frozen=True, kw_only=True):
    """What kind of model it is. Values that are not known are empty."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class ListedModel(Struct, frozen=True, kw_only=True):
    """A model, or a LoRA adapter."""

    name: str
    model: str
    modified_at: str
    """When the server was started."""
    size: int
    """Bytes of memory; 0 if that is not known."""
    digest: str
    details: ModelDetails


class ModelTags(Struct, frozen=True):
    """Response of `/api/tags`."""

    models: list[ListedModel]


class RunningModel(Struct, frozen=True, kw_only=True):
    """A model that is loaded."""

    name: str
    model: str
    size: int
    digest: str
    details: ModelDetails
    size_vram: int
    context_length: int


class RunningModels(Struct, frozen=True):
    """Response of `/api/ps`."""

    models: list[RunningModel]


class ShowRequest(Struct, frozen=True, kw_only=True):
    """Body of `/api/show`."""

    model: str | None = None
    name: str | None = None
    """The older name of ``model``."""


class ShownModel(Struct, frozen=True, kw_only=True):
    """Response of `/api/show`."""

    modelfile: str
    parameters: str
    template: str
    details: ModelDetails
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class Version(Struct, frozen=True):
    """Response of `/api/version`."""

    version: str


class _Model(Struct, frozen=True, kw_only=True):
    """The fields of `/v1/models` that are used."""

    id: str
    created: int
    parent: str | None = None
    artifact_id: str = ""
    max_model_len: int = 0
    input_modalities: list[str] = []
    runtime_config: dict[str, Any] = {}
    state: str = "loaded"
    memory: int = 0

    @property
    def family(self) -> str:
        """Name of the model's class."""
        return str(self.runtime_config.get("architecture") or "")

    @property
    def digest(self) -> str:
        """A digest of what identifies the weights."""
        return sha256((self.artifact_id or self.id).encode()).hexdigest()

    @property
    def details(self) -> ModelDetails:
        """The details in Ollama's form."""
        quantization = self.runtime_config.get("quantization") or self.runtime_config.get("dtype")
        return ModelDetails(
            parent_model=self.parent or "",
            format="",
            family=self.family,
            families=[self.family] if self.family else [],
            parameter_size="",
            quantization_level=str(quantization or ""),
        )

    @property
    def capabilities(self) -> list[str]:
        """What the model can do, as far as it is known."""
        if self.runtime_config.get("runner") == "pooling":
            return ["embedding"]
        parser = self.runtime_config.get("reasoning_parser")
        has = {
            "thinking": isinstance(parser, dict) and parser.get("name") is not None,
            "vision": "image" in self.input_modalities,
        }
        return ["completion", "tools", *(name for name, is_known in has.items() if is_known)]


class _ModelList(Struct, frozen=True):
    data: list[_Model]


def model_routes(server: RunningServer) -> Iterable[HTTPRouteHandler]:
    """Return the handlers."""

    async def models() -> list[_Model]:
        response = await server.call("GET", "/v1/models", b"", client="")
        return msgspec.json.decode(response.body, type=_ModelList).data

    @get(
        "/api/version",
        opt=error_body(ollama_error),
        tags=["Ollama"],
        summary="Version of Ollama's API",
        sync_to_thread=False,
    )
    def version() -> Version:
        """Return the version of Ollama whose API this is."""
        return Version(VERSION)

    @get("/api/tags", opt=error_body(ollama_error), tags=["Ollama"], summary="List the models")
    async def tags() -> ModelTags:
        """Return all names of models, and the LoRA adapters."""
        return ModelTags([_listed(model) for model in await models()])

    @get("/api/ps", opt=error_body(ollama_error), tags=["Ollama"], summary="List the loaded models")
    async def running() -> RunningModels:
        """Return the models that are loaded."""
        return RunningModels([_running(model) for model in await models() if model.state == "loaded"])

    @post(
        "/api/show",
        status_code=200,
        opt={**ANY_CONTENT_TYPE, **error_body(ollama_error)},
        tags=["Ollama"],
        summary="Describe a model",
    )
    async def show(data: JSONBody[ShowRequest]) -> ShownModel:
        """Return what is known about a model."""
        name = data.model or data.name or ""
        found = {model.id: model for model in await models()}
        model = found.get(name) or found.get(name.removesuffix(":latest"))
        if model is None:
            raise ModelNotFound(f"model {name!r} not found")
        return _shown(model)

    return version, tags, running, show


def _listed(model: _Model) -> ListedModel:
    return ListedModel(
        name=model.id,
        model=model.id,
        modified_at=timestamp(model.created),
        size=model.memory,
        digest=model.digest,
        details=model.details,
    )


def _running(model: _Model) -> RunningModel:
    on_cpu = str(model.runtime_config.get("device", "cpu")).startswith("cpu")
    return RunningModel(
        name=model.id,
        model=model.id,
        size=model.memory,
        digest=model.digest,
        details=model.details,
        size_vram=0 if on_cpu else model.memory,
        context_length=model.max_model_len,
    )


def _shown(model: _Model) -> ShownModel:
    family = model.family or "unknown"
    info: dict[str, Any] = {"general.architecture": family, "general.basename": model.id}
    if model.max_model_len:
        info[f"{family}.context_length"] = model.max_model_len
    return ShownModel(
        modelfile="",
        parameters="",
        template="",
        details=model.details,
        model_info=info,
        capabilities=model.capabilities,
        modified_at=timestamp(model.created),
    )
