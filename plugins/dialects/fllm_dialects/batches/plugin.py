"""Register the routes. Only a server imports Litestar, which takes half a second."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fllm import RoutesContext, hookimpl
from fllm_dialects.batches.options import BatchOptions

FLLM_OPTIONS = BatchOptions


@hookimpl
def fllm_routes(context: RoutesContext) -> Iterable[Any]:
    """Yield the handlers of all endpoints, which share the service."""
    from litestar import Router
    from litestar.di import Provide

    from fllm_dialects.batches.batch_routes import cancel_batch, create_batch, list_batches, retrieve_batch
    from fllm_dialects.batches.file_routes import (
        delete_file,
        file_content,
        list_files,
        retrieve_file,
        upload_file,
    )
    from fllm_dialects.batches.service import BatchService

    service = BatchService(context.options, context.server, context.data_dir())
    context.lifespan(service.running)
    yield Router(
        "/",
        route_handlers=[
            *(upload_file, list_files, retrieve_file, file_content, delete_file),
            *(create_batch, list_batches, retrieve_batch, cancel_batch),
        ],
        dependencies={"batches": Provide(lambda: service, sync_to_thread=False)},
    )
