"""Execute the instructions of a Dockerfile, stage by stage."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from dockerfile_parse import DockerfileParser

from rehearsal.roots import Machine, within

IMAGE_ONLY = ("EXPOSE", "VOLUME")
"""Instructions without an effect on files or processes."""


@dataclass
class Stage:
    """An image that is being built."""

    layers: list[Path]
    env: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin"}
    )
    workdir: str = "/"
    user: str = "0:0"
    shell: tuple[str, ...] = ("/bin/sh", "-c")
    commands: dict[str, list[str]] = field(default_factory=dict)
    """Commands of ``ENTRYPOINT``, ``CMD`` and ``HEALTHCHECK``, as a container engine executes them."""

    def child(self) -> Stage:
        """Return a copy, for a ``FROM`` that names this stage."""
        return Stage([*self.layers], {**self.env}, self.workdir, self.user, self.shell, {**self.commands})


class Rehearsal:
    """Builds the stages of one Dockerfile. Each stage is built at most once, when it is needed."""

    def __init__(self, file: Path, context: Path, machine: Machine, args: Mapping[str, str]) -> None:
        self._context = context
        self._machine = machine
        self._args = args
        self._instructions = _by_stage(file)
        self._built: dict[str, Stage] = {}

    def build(self, name: str) -> Stage:
        """Return the stage of this name, built if necessary; raise `CalledProcessError` if a step fails."""
        if name not in self._built:
            (_, origin), *steps = self._instructions[name]
            parent = origin.split()[0]
            stage = self.build(parent).child() if parent in self._instructions else self._base()
            known = dict(stage.env)
            for number, (instruction, value) in enumerate(steps):
                print(f"[{name} {number + 1}/{len(steps)}] {instruction} {value}", flush=True)
                self._step(stage, instruction, value, known, f"{name}-{number}")
            self._built[name] = stage
        return self._built[name]

    def _base(self) -> Stage:
        return Stage([self._machine.base()])

    def _step(self, stage: Stage, instruction: str, value: str, known: dict[str, str], name: str) -> None:
        match instruction:
            case "ARG":
                key, _, default = value.partition("=")
                known[key] = self._args.get(key, default)
            case "ENV":
                added = _pairs(value, known)
                stage.env |= added
                known |= added
            case "WORKDIR":
                stage.workdir = value
                self._run(stage, ["/bin/mkdir", "-p", value], {}, name, workdir="/", user="0:0")
            case "USER":
                stage.user = {"root": "0:0"}.get(value, value)
            case "SHELL":
                stage.shell = tuple(json.loads(value))
            case "RUN":
                self._run(stage, [*stage.shell, value], known, name)
            case "COPY":
                self._copy(stage, value, name)
            case "ENTRYPOINT" | "CMD":
                stage.commands[instruction] = json.loads(value)
            case "HEALTHCHECK":
                stage.commands[instruction] = json.loads(value.partition("CMD ")[2])
            case _ if instruction not in IMAGE_ONLY:
                raise SystemExit(f"unsupported instruction: {instruction}")

    def _run(
        self,
        stage: Stage,
        command: list[str],
        env: Mapping[str, str],
        name: str,
        *,
        workdir: str | None = None,
        user: str | None = None,
    ) -> None:
        root, layer = self._machine.mount(stage.layers, name)
        enter = ["chroot", f"--userspec={user or stage.user}", str(root)]
        move = ["/usr/bin/env", "-C", workdir or stage.workdir]
        subprocess.run([*enter, *move, *command], check=True, env={**stage.env, **env})
        stage.layers.append(layer)

    def _copy(self, stage: Stage, value: str, name: str) -> None:
        *sources, target = shlex.split(value)
        origin = self._context
        if sources[0].startswith("--from="):
            layers = self.build(sources.pop(0).removeprefix("--from=")).layers
            origin, _ = self._machine.mount(layers, f"{name}-from")
        root, layer = self._machine.mount(stage.layers, name)
        there = within(root, Path(stage.workdir, target))
        for source in sources:
            _copy(within(origin, source), there, into=target.endswith("/"))
        stage.layers.append(layer)


def _by_stage(file: Path) -> dict[str, list[tuple[str, str]]]:
    """Return the instructions of each stage by its name; the first one is its FROM."""
    stages: dict[str, list[tuple[str, str]]] = {}
    name = ""
    with file.open("rb") as opened:
        structure = DockerfileParser(fileobj=opened).structure
    for each in structure:
        instruction, value = each["instruction"], each["value"]
        if instruction == "FROM":
            name = value.split()[-1]
            stages[name] = []
        if instruction != "COMMENT":
            stages[name].append((instruction, value))
    return stages


def _pairs(value: str, known: Mapping[str, str]) -> dict[str, str]:
    """Parse ``A=1 B=$A/2``; variables have the values from before the line."""
    words = (word.partition("=") for word in shlex.split(value))
    return {key: Template(text).substitute(known) for key, _, text in words}


def _copy(source: Path, target: Path, *, into: bool) -> None:
    """Copy the contents of a directory into the target, or a file to the target (``into`` it, if set)."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    else:
        folder = target if into else target.parent
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
