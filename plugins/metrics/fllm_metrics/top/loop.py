"""The main loop: fetch and draw snapshots until the user quits."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from threading import Event, Thread

from rich.console import Console
from rich.live import Live
from rich.text import Text

from fllm.errors import ConfigError, FllmError
from fllm_metrics.top.client import Client, Snapshot
from fllm_metrics.top.frame import Frame, with_hint
from fllm_metrics.top.history import History
from fllm_metrics.top.keyboard import keyboard

KEYBOARD_INTERVAL = 0.1
"""Seconds between checks of the keyboard."""
QUIT_KEYS = b"qQ"


def print_once(client: Client, console: Console, interval: float) -> bool:
    """Print one frame from two snapshots; return whether the server is healthy.

    Raise `FllmError` if the server is unreachable, and `ConfigError` like `Client.snapshot`.
    """
    history = History()
    history.add(client.snapshot())
    Event().wait(interval)
    snapshot = client.snapshot()
    if snapshot.page is None:
        raise FllmError(f"{client.url}: {snapshot.problem}")
    history.add(snapshot)
    console.print(Frame(client.url, snapshot, history, interval))
    return not snapshot.problem


def watch(client: Client, console: Console, interval: float) -> None:
    """Draw until the user quits; raise `ConfigError` like `Client.snapshot`."""
    history = History()
    first = Text(f"connecting to {client.url}; q to quit")
    with keyboard() as pressed, Live(first, console=console, screen=True, auto_refresh=False) as live:
        for snapshot in _snapshots(client, interval):
            if snapshot is not None:
                history.add(snapshot)
                frame = Frame(client.url, snapshot, history, interval)
                retrying = "" if snapshot.page else f"trying again every {interval:g} s; "
                live.update(with_hint(frame, f"{retrying}q to quit"), refresh=True)
            if set(pressed()) & set(QUIT_KEYS):
                return


def _snapshots(client: Client, interval: float) -> Iterator[Snapshot | None]:
    """Yield snapshots from a thread, or None every `KEYBOARD_INTERVAL`, so that the keyboard never blocks."""
    results: queue.Queue[Snapshot | ConfigError] = queue.Queue()
    stop = Event()
    Thread(target=_poll, args=(client, interval, results, stop), daemon=True).start()
    try:
        while True:
            try:
                snapshot = results.get(timeout=KEYBOARD_INTERVAL)
            except queue.Empty:
                yield None
                continue
            if isinstance(snapshot, ConfigError):
                raise snapshot
            yield snapshot
    finally:
        stop.set()


def _poll(client: Client, interval: float, results: queue.Queue[Snapshot | ConfigError], stop: Event) -> None:
    while not stop.is_set():
        try:
            results.put(client.snapshot())
        except ConfigError as error:
            results.put(error)
            return
        stop.wait(interval)
