"""Dockerfile, compose file, Kubernetes manifests and systemd unit are valid and consistent."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from dockerfile_parse import DockerfileParser
from support.paths import ROOT

PROJECT = ROOT
DEPLOY = PROJECT / "deploy"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
USER = "10001"


def check(program: str, *arguments: str | Path) -> None:
    """Run a checker of this environment; it must find nothing."""
    path = Path(sys.executable).with_name(program)
    done = subprocess.run([path, *arguments], capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 0, done.stdout + done.stderr


def instructions(name: str) -> list[str]:
    """Return the values of all instructions of this name."""
    with DOCKERFILE.open("rb") as file:
        structure = DockerfileParser(fileobj=file).structure
    return [each["value"] for each in structure if each["instruction"] == name]


def compose() -> Mapping[str, Any]:
    services: Mapping[str, Any] = yaml.safe_load((PROJECT / "compose.yaml").read_text())["services"]
    return services


def deployment() -> Any:
    return yaml.safe_load((DEPLOY / "kubernetes" / "deployment.yaml").read_text())["spec"]["template"]["spec"]


def test_hadolint_accepts_the_dockerfile() -> None:
    check("hadolint", DOCKERFILE)


def test_everything_that_the_image_copies_exists_and_is_not_ignored() -> None:
    lines = (PROJECT / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = [word for value in instructions("COPY") if "--from" not in value for word in value.split()[:-1]]
    assert copied
    for name in copied:
        assert (PROJECT / name).exists(), name
        assert name in allowed, f"{name} is excluded by .dockerignore"


def test_an_image_runs_as_its_own_user_and_serves_by_default() -> None:
    assert instructions("USER")[-1] == f"{USER}:{USER}"
    assert instructions("FROM")[-1].endswith("AS cpu"), "the last stage is the default target"
    assert (instructions("ENTRYPOINT"), instructions("CMD")) == (['["furiosa-llm"]'], ['["serve"]'])


def test_the_compose_file_is_valid_and_names_existing_files() -> None:
    check("check-jsonschema", "--builtin-schema", "vendor.compose-spec", PROJECT / "compose.yaml")
    mounts = [volume for service in compose().values() for volume in service["volumes"]]
    for path in (mount.partition(":")[0] for mount in mounts if mount.startswith(".")):
        assert (PROJECT / path).exists(), path


def test_the_compose_service_is_confined() -> None:
    server = compose()["server"]
    assert server["read_only"] is True
    assert server["cap_drop"] == ["ALL"]
    assert server["security_opt"] == ["no-new-privileges:true"]
    assert [mount.partition(":")[2] for mount in server["volumes"]] == instructions("VOLUME")


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_a_manifest_is_valid(manifest: Path) -> None:
    if manifest.name == "kustomization.yaml":
        named = yaml.safe_load(manifest.read_text())["resources"]
        assert set(named) == {path.name for path in MANIFESTS} - {manifest.name}
    else:
        check("kubernetes-validate", "--strict", "-k", "1.33", manifest)


def test_the_pod_is_confined_like_the_image() -> None:
    pod = deployment()
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert str(pod["securityContext"]["runAsUser"]) == USER
    confined = container["securityContext"]
    assert confined["readOnlyRootFilesystem"] is True
    assert confined["capabilities"] == {"drop": ["ALL"]}
    assert instructions("VOLUME")[0] in [mount["mountPath"] for mount in container["volumeMounts"]]


def test_the_pod_trusts_its_own_volume_which_may_have_mode_0777() -> None:
    [container] = deployment()["containers"]
    assert {"name": "FLLM_TRUST_CACHE", "value": "1"} in container["env"]


def test_probes_use_the_right_endpoints() -> None:
    [container] = deployment()["containers"]
    paths = {name: container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")}
    assert paths == {"startupProbe": "/ready", "readinessProbe": "/ready", "livenessProbe": "/health"}


def test_stop_timeouts_allow_the_server_to_drain() -> None:
    """Draining takes up to 30 s (``--shutdown-timeout``), and the engine up to 10 s to stop."""
    unit = (DEPLOY / "systemd" / "furiosa-llm.service").read_text()
    timeouts = [
        int(deployment()["terminationGracePeriodSeconds"]),
        int(compose()["server"]["stop_grace_period"].removesuffix("s")),
        *map(int, re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.M)),
    ]
    assert len(timeouts) == 3
    assert min(timeouts) > 40


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this machine has no systemd")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "furiosa-llm"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "furiosa-llm.service"
    source = (DEPLOY / "systemd" / "furiosa-llm.service").read_text()
    unit.write_text(source.replace("/opt/furiosa-llm", str(tmp_path)))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    warnings = [line for line in done.stderr.splitlines() if "furiosa-llm" in line]
    assert (done.returncode, warnings) == (0, []), done.stderr


UNIT = DEPLOY / "systemd" / "furiosa-llm.service"


def test_the_service_reads_the_keys_again_at_a_reload() -> None:
    """A credential of systemd is a copy, made once at the start: a removed key would stay valid."""
    unit = UNIT.read_text()
    assert "LoadCredential" not in unit
    assert "ExecReload=/bin/kill -HUP $MAINPID" in unit
    assert "FURIOSA_LLM_API_KEY_FILE" not in unit, "a server without keys needs no file"
    [user] = re.findall(r"^User=(.+)$", unit, re.M)
    assert f"\nu {user} - " in (DEPLOY / "systemd" / "furiosa-llm.sysusers").read_text()


def test_the_options_of_the_service_exist() -> None:
    from fllm_api.cli.options import SERVE_PARAMS

    names = {f"FURIOSA_LLM_{(each.name or '').upper()}" for each in SERVE_PARAMS}
    lines = (DEPLOY / "systemd" / "environment").read_text().splitlines()
    set_names = {line.partition("=")[0].lstrip("#") for line in lines if line.startswith("#FURIOSA")}
    assert set_names
    assert set_names <= names


def test_the_documentation_of_the_service_is_our_own() -> None:
    [page] = re.findall(r"^Documentation=file:/usr/share/doc/furiosa-llm/(.+)$", UNIT.read_text(), re.M)
    assert (ROOT / "docs" / page).is_file()


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="this machine has no systemd")
def test_systemd_creates_the_user(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    file = DEPLOY / "systemd" / "furiosa-llm.sysusers"
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", file], check=True, capture_output=True)
    assert "furiosa-llm:" in (tmp_path / "etc" / "passwd").read_text()
