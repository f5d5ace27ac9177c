"""The loop: look, draw, until somebody has seen enough."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from threading import Event, Thread

from rich.console import Console
from rich.live import Live
from rich.text import Text

from fllm.errors import ConfigError, FllmError
from fllm_metrics.top.client import Look, Probe
from fllm_metrics.top.frame import Frame, lines
from fllm_metrics.top.history import History
from fllm_metrics.top.keyboard import keyboard

POLL = 0.1
"""Seconds between two looks at the keyboard."""
ENDS = b"qQ"


def once(probe: Probe, console: Console, interval: float) -> bool:
    """Print one frame of two looks; false if the server is not well.

    Raises `FllmError` if it is not there, and `ConfigError` as `Probe.look` does.
    """
    history = History()
    history.add(probe.look())
    Event().wait(interval)
    look = probe.look()
    if look.page is None:
        raise FllmError(f"{probe.url}: {look.trouble}")
    history.add(look)
    console.print(Frame(probe.url, look, history, interval))
    return not look.trouble


def watch(probe: Probe, console: Console, interval: float) -> None:
    """Draw until a key or Ctrl-C ends it; raises `ConfigError` as `Probe.look` does."""
    history = History()
    first = Text(f"looking at {probe.url}; q to quit")
    with keyboard() as pressed, Live(first, console=console, screen=True, auto_refresh=False) as live:
        for look in _looks(probe, interval):
            if look is not None:
                history.add(look)
                frame = Frame(probe.url, look, history, interval)
                again = "" if look.page else f"trying again every {interval:g} s; "
                live.update(lines(frame, f"{again}q to quit"), refresh=True)
            if set(pressed()) & set(ENDS):
                return


def _looks(probe: Probe, interval: float) -> Iterator[Look | None]:
    """What a thread sees, and nothing every `POLL` seconds: where the server hangs, the keyboard must not."""
    seen: queue.Queue[Look | ConfigError] = queue.Queue()
    stop = Event()
    Thread(target=_keep_looking, args=(probe, interval, seen, stop), daemon=True).start()
    try:
        while True:
            try:
                look = seen.get(timeout=POLL)
            except queue.Empty:
                yield None
                continue
            if isinstance(look, ConfigError):
                raise look
            yield look
    finally:
        stop.set()


def _keep_looking(probe: Probe, interval: float, seen: queue.Queue[Look | ConfigError], stop: Event) -> None:
    while not stop.is_set():
        try:
            seen.put(probe.look())
        except ConfigError as error:
            seen.put(error)
            return
        stop.wait(interval)
