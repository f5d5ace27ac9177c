"""Register the routes. Only a server imports Litestar, which takes half a second."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from typing import TYPE_CHECKING, Any

from fllm import hookimpl
from fllm_dialects.batches.options import BatchOptions

if TYPE_CHECKING:
    from fllm import RoutesContext

FLLM_OPTIONS = BatchOptions


@hookimpl
def fllm_routes(context: RoutesContext) -> Iterable[Any]:
    """Yield the handlers of all endpoints, which share the service."""
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
    provide = Provide(lambda: service, sync_to_thread=False)
    for handler in (
        *(upload_file, list_files, retrieve_file, file_content, delete_file),
        *(create_batch, list_batches, retrieve_batch, cancel_batch),
    ):
        own = copy(handler)  # several servers may be in one process
        own.dependencies = {"batches": provide}
        yield own
