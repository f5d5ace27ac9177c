"""Decide which models are loaded: on demand, within a memory budget, and as long as they are used.

Requests that wait for a model are a group, which starts when the model is loaded. If a model must make room
for another one, it starts at most `GROUP_SIZE` further requests; then it finishes those in flight and is
unloaded. So a model is loaded after a bounded number of others' requests, and no request is interrupted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from functools import partial
from typing import Any, Generic, TypeVar

from fllm.containment import contained
from fllm.errors import UserError
from fllm_api.models.errors import ModelUnavailable
from fllm_api.models.lease import ModelLease
from fllm_api.models.model import Model, ModelState
from fllm_api.models.waiting_line import Waiter, WaitingLine

T = TypeVar("T")

GROUP_SIZE = 32
"""Requests that loaded models start while another model waits for their memory."""
MAX_RETRY_DELAY = 60.0
"""Maximum seconds between two tries to load a model."""
ASSUMED_LOAD_SECONDS = 5.0
"""Duration of a load that has not been measured, for ``Retry-After``."""

log = logging.getLogger("fllm.models")


def format_bytes(size: int) -> str:
    """Return a number of bytes in MiB, for people."""
    return f"{size / 2**20:.0f} MiB"


class ModelPool(Generic[T]):
    """Loads and unloads models. All methods are called on one event loop."""

    def __init__(
        self,
        models: Sequence[Model[T]],
        *,
        budget: int | None = None,
        max_waiting: int = 2048,
        group_size: int = GROUP_SIZE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a pool. ``budget``: bytes for all loaded models; ``None``: no limit."""
        self.models = tuple(models)
        self.budget = budget
        self._max_waiting = max_waiting
        self._group_size = group_size
        self._clock = clock
        self._line: WaitingLine[T] = WaitingLine()
        self._next: Model[T] | None = None
        """The model that is loaded next, and waits for memory."""
        self._victims: frozenset[Model[T]] = frozenset()
        """Models that are unloaded for it as soon as they are idle."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def used(self) -> int:
        """Bytes of all models that occupy memory."""
        return sum(model.size for model in self.models if model.occupies_memory)

    @property
    def _staying(self) -> int:
        """Bytes of all models that occupy memory and are not being unloaded."""
        return sum(each.size for each in self.models if each.state in ("loading", "loaded"))

    def waiting(self, model: Model[T]) -> int:
        """Return the number of requests that wait for a model."""
        return len(self._line.of(model))

    def adopt(self, model: Model[T], loaded: T) -> None:
        """Take over a model that was loaded before the pool existed."""
        model.gone.clear()
        self._finish_load(model, loaded)

    def try_acquire(self, model: Model[T]) -> ModelLease[T] | None:
        """Return a lease if the model is loaded and may be used now."""
        return self._start(model) if self._may_start(model) else None

    def wait(self, model: Model[T], client: str) -> Waiter[T]:
        """Return a waiter, whose ``lease`` is set once the model is loaded. `cancel` it if it is not needed.

        Raise `ModelUnavailable` if too many requests wait, or the model can't be loaded now.
        """
        self._check_available(model)
        waiter = self._line.add(model, client)
        self._schedule()
        return waiter

    def cancel(self, waiter: Waiter[T]) -> None:
        """Give up waiting; release the lease if there is one already."""
        self._line.remove(waiter)
        lease = waiter.lease
        if lease.done() and not lease.cancelled() and lease.exception() is None:
            lease.result().release()
        lease.cancel()
        if not self._line.of(waiter.model):
            waiter.model.overtaken = 0
        self._schedule()

    def describe(self, waiter: Waiter[T]) -> str:
        """Return the place of a request, for people."""
        model, place = waiter.model, self._line.place(waiter)
        what = f"request {place} of {self.waiting(model)} that wait for the model {model.name!r}"
        ahead = [each.name for each in self._line.models() if not each.occupies_memory]
        if model.state == "loading":
            return f"{what}, which is being loaded"
        if model.name in ahead[1:]:
            return f"{what}, which is number {ahead.index(model.name) + 1} of the models to be loaded"
        return f"{what}, which is loaded once there is memory"

    async def acquire(self, model: Model[T], client: str = "") -> ModelLease[T]:
        """Return a lease once the model is loaded. Raise `ModelUnavailable` if that fails."""
        if (lease := self.try_acquire(model)) is not None:
            return lease
        waiter = self.wait(model, client)
        try:
            return await waiter.lease
        except asyncio.CancelledError:
            self.cancel(waiter)
            raise

    async def load(self, model: Model[T], client: str = "") -> None:
        """Load a model, unless it is loaded. Raise `ModelUnavailable` if that fails."""
        (await self.acquire(model, client)).release()

    async def unload(self, model: Model[T]) -> None:
        """Unload a model after its requests in flight. Requests that arrive meanwhile load it again."""
        if model.occupies_memory:
            model.draining = True
            self._schedule()
            await model.gone.wait()

    def retry(self, model: Model[T]) -> None:
        """Allow the next try to load a model whose last load failed."""
        model.retry_at = 0.0

    def pin(self, model: Model[T], *, pinned: bool) -> None:
        """Keep a model loaded once it is, or not."""
        model.pinned = pinned
        self._schedule()

    def pin_problem(self, more: Sequence[Model[T]] = ()) -> str | None:
        """Return why these models can't be pinned too: the others would never fit. ``None``: they can."""
        pinned = [each for each in self.models if each.pinned or each in more]
        others = max((each.size for each in self.models if each not in pinned), default=0)
        size = sum(each.size for each in pinned)
        if self.budget is None or size + others <= self.budget:
            return None
        what = ", ".join(repr(each.name) for each in pinned)
        return (
            f"the pinned models {what} take {format_bytes(size)} of the memory budget of "
            f"{format_bytes(self.budget)}, and the largest other model {format_bytes(others)}"
        )

    def record_size(self, model: Model[T], size: int) -> None:
        """Use the measured size of a loaded model, and unload others if the budget is exceeded."""
        model.measure(size, self._clock() - model.loaded_at)
        self._schedule()

    async def close(self) -> None:
        """Unload everything. Requests that wait are rejected."""
        self._closed = True
        for model in self._line.models():
            self._reject_group(model, ModelUnavailable("the server is shutting down", 1.0, "unavailable"))
        if self._timer is not None:
            self._timer.cancel()
        loads = [task for task in self._tasks if task.get_name() == "load"]
        for task in loads:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for model in self.models:
            if model.loaded is not None:
                await model.loader.unload(model.loaded)
                self._finish_unload(model, "unloaded")

    # What a request may do

    def _check_available(self, model: Model[T]) -> None:
        now = self._clock()
        if self._closed:
            raise ModelUnavailable("the server is shutting down", 1.0, "unavailable")
        if model.state == "failed" and now < model.retry_at:
            raise _load_failed(model, model.retry_at - now)
        waiting = len(self._line)
        if waiting >= max(self._max_waiting, 1):
            seconds = self._seconds_until_loaded(model)
            own = self.waiting(model)
            raise ModelUnavailable(
                f"{waiting} requests wait for models to be loaded, {own} of them for {model.name!r}; "
                f"try again in {seconds:.0f} s",
                seconds,
                "server_busy",
            )

    def _seconds_until_loaded(self, model: Model[T]) -> float:
        """Return when a model is probably loaded, from the last load of each that is loaded before it."""
        line = self._line.models()
        before = line[: line.index(model)] if model in line else line
        return sum(each.load_seconds or ASSUMED_LOAD_SECONDS for each in (*before, model))

    def _may_start(self, model: Model[T]) -> bool:
        if model.state != "loaded" or model.draining:
            return False
        makes_room = self._next is not None and model in self._victims
        return not (makes_room and self._next is not None and self._next.overtaken >= self._group_size)

    def _start(self, model: Model[T]) -> ModelLease[T]:
        assert model.loaded is not None, "a loaded model has been loaded"
        if self._next is not None:
            self._next.overtaken += 1
        model.in_flight += 1
        return ModelLease(model.loaded, partial(self._end, model))

    def _end(self, model: Model[T]) -> None:
        model.in_flight -= 1
        model.last_used = self._clock()
        self._schedule()

    def _start_group(self, model: Model[T], limit: int | None = None) -> None:
        """Start requests that wait for a loaded model: all that may start, or the first ``limit``."""
        for waiter in self._line.of(model)[:limit]:
            if limit is None and not self._may_start(model):
                return
            self._line.remove(waiter)
            if not waiter.lease.done():
                waiter.lease.set_result(self._start(model))

    def _reject_group(self, model: Model[T], error: ModelUnavailable) -> None:
        for waiter in self._line.of(model):
            self._line.remove(waiter)
            if not waiter.lease.done():
                waiter.lease.set_exception(error)

    # What is loaded and unloaded

    def _schedule(self) -> None:
        """Do everything that can be done now, after any change."""
        if self._closed:
            return
        self._next, self._victims = None, frozenset()
        for model in self._line.models():
            if model.occupies_memory:
                continue
            if self._has_room(model):
                self._begin_load(model)
            elif model in self._line.models():
                self._next = model
                break
        for model in self.models:
            if model.draining and model.idle:
                self._begin_unload(model, "unloaded")
            elif model.state == "loaded":
                self._start_group(model)
        self._unload_unused()

    def _has_room(self, model: Model[T]) -> bool:
        """Return whether a model can be loaded now. If not, choose what is unloaded for it."""
        if self.budget is None:
            return True
        pinned = sum(each.size for each in self.models if each.pinned and each.occupies_memory)
        if model.estimate > self.budget - pinned and pinned:
            message = f"the pinned models leave no memory for the model {model.name!r}"
            self._reject_group(model, ModelUnavailable(message, MAX_RETRY_DELAY))
            return False
        needed = min(model.size, self.budget - pinned)
        if needed <= self.budget - self.used:
            return True
        self._victims = self._choose_victims(needed + self._staying - self.budget)
        for victim in self._victims:
            if victim.idle:
                self._begin_unload(victim, "unloaded")
        return False

    def _choose_victims(self, size: int) -> frozenset[Model[T]]:
        """Return models that occupy ``size`` bytes: idle ones first, then the least recently used."""
        candidates = [each for each in self.models if each.state == "loaded" and not each.pinned]
        victims: list[Model[T]] = []
        for each in sorted(candidates, key=lambda each: (each.in_flight > 0, each.last_used)):
            if sum(victim.size for victim in victims) >= size:
                break
            victims.append(each)
        return frozenset(victims)

    def _unload_unused(self) -> None:
        """Unload what was idle for too long, or exceeds the budget as measured; schedule the next look."""
        now = self._clock()
        idle = sorted((each for each in self.models if each.idle and not each.pinned), key=_last_used)
        due: list[float] = []
        for model in idle:
            over = self.budget is not None and self._staying > self.budget and self._others_loaded(model)
            ends = model.last_used + model.idle_timeout
            if over or (model.idle_timeout and ends <= now):
                self._begin_unload(model, "unloaded" if over else "sleeping")
            elif model.idle_timeout:
                due.append(ends - now)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due:
            self._timer = asyncio.get_running_loop().call_later(min(due) + 0.001, self._schedule)

    def _others_loaded(self, model: Model[T]) -> bool:
        return any(each is not model and each.state in ("loaded", "loading") for each in self.models)

    def _begin_load(self, model: Model[T]) -> None:
        self._line.advance(model)
        model.state, model.overtaken = "loading", 0
        model.gone.clear()
        self._run(self._load(model), "load")

    async def _load(self, model: Model[T]) -> None:
        log.info("loading the model %r", model.name)
        started = self._clock()
        loaded: T | None = None
        with contained(partial(self._fail_load, model)):
            loaded = await model.loader.load()
        if loaded is None:
            return
        model.loaded = loaded  # `close` unloads it even if it ends this task now
        model.measure(await model.loader.measure(loaded))
        model.load_seconds = self._clock() - started
        log.info(
            "the model %r is loaded in %.1f s, %d MiB", model.name, model.load_seconds, model.memory >> 20
        )
        self._finish_load(model, loaded)

    def _finish_load(self, model: Model[T], loaded: T) -> None:
        model.loaded, model.state = loaded, "loaded"
        model.loads += 1
        model.failures, model.error = 0, ""
        model.last_used = model.loaded_at = self._clock()
        # At least the group that it was loaded for starts, even if another model waits for its memory.
        self._start_group(model, self._group_size)
        self._schedule()

    def _fail_load(self, model: Model[T], error: BaseException) -> None:
        model.failures += 1
        delay = min(2.0 ** (model.failures - 1), MAX_RETRY_DELAY)
        model.error = error.message if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        model.state, model.retry_at = "failed", self._clock() + delay
        model.draining = False
        model.gone.set()
        log.error(
            "the model %r can't be loaded: %s; it is not tried again for %g s",
            *(model.name, model.error, delay),
            exc_info=None if isinstance(error, UserError) else error,
        )
        self._reject_group(model, _load_failed(model, delay))
        self._schedule()

    def _begin_unload(self, model: Model[T], becomes: ModelState) -> None:
        model.state = "unloading"
        self._run(self._unload(model, becomes), "unload")

    async def _unload(self, model: Model[T], becomes: ModelState) -> None:
        assert model.loaded is not None, "only a loaded model is unloaded"
        model.measure(await model.loader.measure(model.loaded))
        with contained(lambda error: log.error("the model %r did not unload: %s", model.name, error)):
            await model.loader.unload(model.loaded)
        log.info("the model %r is unloaded%s", model.name, ", unused" if becomes == "sleeping" else "")
        self._finish_unload(model, becomes)
        self._schedule()

    def _finish_unload(self, model: Model[T], becomes: ModelState) -> None:
        model.loaded, model.state = None, becomes
        model.draining = False
        model.gone.set()

    def _run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        # Without the context of the request that happened to cause it, whose id would be in its log lines.
        task = asyncio.create_task(work, name=name, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _last_used(model: Model[T]) -> float:
    return model.last_used


def _load_failed(model: Model[T], seconds: float) -> ModelUnavailable:
    return ModelUnavailable(
        f"the model {model.name!r} can't be loaded; the server's log says why, and it is tried again in "
        f"{max(seconds, 1):.0f} s",
        seconds,
    )
