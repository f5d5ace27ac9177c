"""The compose file and the KubeRay manifest of a server on a Ray cluster."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.paths import ROOT

from fllm.config import Autoscaling
from fllm_api.cli.loaded_plugins import plugin_config, plugins_of
from fllm_api.cli.serve import serve
from fllm_api.cli.settings import Settings, settings_from_options

FOLDER = ROOT / "deploy" / "ray"


def check(program: str, *arguments: str | Path) -> None:
    """Run a checker of this environment; it must find nothing."""
    path = Path(sys.executable).with_name(program)
    done = subprocess.run([path, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def compose() -> Any:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]


def cluster() -> Any:
    return next(yaml.safe_load_all((FOLDER / "kuberay.yaml").read_text()))


def groups() -> list[Any]:
    return [cluster()["spec"]["headGroupSpec"], *cluster()["spec"]["workerGroupSpecs"]]


def settings(script: str) -> Settings:
    """Return what the server reads from the last command of a shell script."""
    words = shlex.split(script.replace("\\\n", " ").strip().splitlines()[-1])
    assert words[:3] == ["exec", "furiosa-llm", "serve"]
    with serve.make_context("serve", words[3:]) as ctx:
        return settings_from_options(ctx.params, plugins_of(ctx), plugin_config(ctx))


def test_the_compose_file_is_valid() -> None:
    check("check-jsonschema", "--builtin-schema", "vendor.compose-spec", FOLDER / "compose.yaml")


def test_the_documents_of_the_manifest_are_valid_pods_and_a_service(tmp_path: Path) -> None:
    """The schema of RayCluster is the operator's, but its templates are those of pods."""
    _, service = yaml.safe_load_all((FOLDER / "kuberay.yaml").read_text())
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": group["template"]["spec"]}
        for group in groups()
    ]
    for number, document in enumerate([*pods, service]):
        file = tmp_path / f"{number}.yaml"
        file.write_text(yaml.safe_dump(document))
        check("kubernetes-validate", "--strict", "-k", "1.33", file)
    labels = {"ray.io/cluster": cluster()["metadata"]["name"], "ray.io/node-type": "head"}
    assert service["spec"]["selector"] == labels


@pytest.mark.parametrize(
    "script",
    [
        compose()["server"]["command"][0],
        cluster()["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["args"][0],
    ],
    ids=["compose", "kuberay"],
)
def test_the_server_accepts_its_options(script: str) -> None:
    config = settings(script).backend_config
    assert (config.placement, config.placement_options["address"]) == ("ray", "auto")
    assert isinstance(config.autoscaling, Autoscaling)
    assert config.autoscaling.max_replicas > 1


def test_each_node_has_room_for_one_engine_and_the_head_for_none() -> None:
    head, workers = groups()
    script = head["template"]["spec"]["containers"][0]["args"][0]
    config = settings(script).backend_config
    assert config.autoscaling is not None
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert workers["rayStartParams"]["num-cpus"] == config.placement_options["num_cpus"]
    assert workers["maxReplicas"] == config.autoscaling.max_replicas
    assert "--num-cpus 0" in compose()["server"]["command"][0]
    num_cpus = settings(compose()["server"]["command"][0]).backend_config.placement_options["num_cpus"]
    assert f"--num-cpus {num_cpus} " in compose()["node"]["command"][0]


def test_the_containers_are_confined_and_have_the_locked_version_of_ray() -> None:
    for group in groups():
        [container] = group["template"]["spec"]["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert group["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
        assert container["image"] == compose()["server"]["image"]
    for service in compose().values():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert f"\nray=={cluster()['spec']['rayVersion']} " in (ROOT / "constraints.txt").read_text()
