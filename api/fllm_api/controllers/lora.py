"""`POST /v1/load_lora_adapter` and `/v1/unload_lora_adapter`, with ``--enable-runtime-lora-loading``."""

from __future__ import annotations

from litestar import Controller, MediaType, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from fllm_api.intake.json_body import ApiRequest, require_json
from fllm_api.model_registry import ModelRegistry
from fllm_api.openapi.responses import errors
from fllm_api.protocol.lora import LoadLoraAdapterRequest, UnloadLoraAdapterRequest
from fllm_api.request_context import context_of


class LoraController(Controller):
    """Loads and unloads LoRA adapters while the server runs."""

    path = "/v1"
    tags = ("Server",)

    @post(
        "/load_lora_adapter",
        status_code=200,
        media_type=MediaType.TEXT,
        before_request=require_json,
        responses=errors(400, 401, 404, 413, 415, 503),
        summary="Load a LoRA adapter",
    )
    async def load(
        self,
        data: JSONBody[LoadLoraAdapterRequest],
        request: ApiRequest,
        models: NamedDependency[ModelRegistry],
    ) -> str:
        """Load an adapter from a directory of the server. Requests can then name it as their model."""
        model = models.find(data.model)
        models.check_adapter_name(data.lora_name, model)
        async with models.use(model, context_of(request.scope).client) as server:
            await server.adapters.load(data.lora_name, data.lora_path, in_place=bool(data.load_inplace))
        return f"Success: LoRA adapter '{data.lora_name}' added successfully."

    @post(
        "/unload_lora_adapter",
        status_code=200,
        media_type=MediaType.TEXT,
        before_request=require_json,
        responses=errors(400, 401, 404, 413, 415, 503),
        summary="Unload a LoRA adapter",
    )
    async def unload(
        self, data: JSONBody[UnloadLoraAdapterRequest], models: NamedDependency[ModelRegistry]
    ) -> str:
        """Unload an adapter. Requests in flight complete with it; new ones are rejected."""
        await models.unload_adapter(data.lora_name)
        return f"Success: LoRA adapter '{data.lora_name}' removed successfully."
