"""Every server in turn, round after round, so that a noisy machine is unfair to all alike."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from fllm_api.bench.client import Client, Contact, meet
from fllm_api.bench.prompts import Prompts
from fllm_api.bench.report import Measured, Report, ratio, summarize
from fllm_api.bench.server import Manner, Server
from fllm_api.bench.workload import Sample, Workload

Tell = Callable[[str], None]


async def compare(
    workload: Workload, servers: Sequence[Server], manner: Manner, *, rounds: int, tell: Tell
) -> Report:
    """Measure each server once in each round; the first of them is ours.

    ``tell`` hears what is being done. Raises `UserError` where a server can't be reached.
    """
    once = secrets.token_hex(8)  # no cache may know a prompt, from an earlier run or by another name
    contacts = []
    for server in servers:
        tell(f"asking {server.name}")
        contacts.append(await meet(server, manner, Prompts(once).words(16)))
    samples: dict[tuple[str, int], list[Sample]] = {}
    for turn in range(rounds):
        for concurrency in workload.concurrencies:
            for contact in contacts:
                name = contact.server.name
                tell(f"round {turn + 1} of {rounds}, {concurrency} at a time, {name}")
                prompts = Prompts(f"{once} {turn} {concurrency} {name}")
                sample = await _measure(workload, contact, concurrency, prompts)
                samples.setdefault((name, concurrency), []).append(sample)
    return _report(workload, contacts, samples, rounds)


async def _measure(workload: Workload, contact: Contact, concurrency: int, prompts: Prompts) -> Sample:
    """With connections of its own: some servers close idle ones after seconds."""
    client = Client(contact)
    try:
        return await workload.measure(client, concurrency, prompts)
    finally:
        client.close()


def _report(
    workload: Workload,
    contacts: Sequence[Contact],
    samples: dict[tuple[str, int], list[Sample]],
    rounds: int,
) -> Report:
    names = [contact.server.name for contact in contacts]
    results = [
        [summarize(name, concurrency, samples[name, concurrency]) for name in names]
        for concurrency in workload.concurrencies
    ]
    return Report(
        workload=workload,
        rounds=rounds,
        servers=[
            Measured(name=contact.server.name, url=contact.server.url, model=contact.model)
            for contact in contacts
        ],
        figures=workload.figures,
        results=[result for row in results for result in row],
        ratios=[ratio(row, workload.figures) for row in results if len(row) > 1],
    )
