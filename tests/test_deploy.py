"""What is deployed: the unit and the container file say what they should, and the example config is in order."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer.main
import yaml

from engines.errors import UsageError
from stream.cli import app
from stream.service.serve_config import EngineConfig, StatusConfig, SupervisorConfig, read_serve_config

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"


def unit() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((DEPLOY / "standin.service").read_text())
    return parser["Service"]


def test_the_example_config_is_in_order() -> None:
    config = read_serve_config(DEPLOY / "config.toml", {"CAMERA_PASSWORD": "geheim99"})
    assert list(config.streams) == ["front-door", "yard"]
    assert config.supervisor == SupervisorConfig()
    assert config.status == StatusConfig()
    assert "geheim99" not in repr(config)
    with pytest.raises(UsageError, match="CAMERA_PASSWORD"):
        read_serve_config(DEPLOY / "config.toml", {})


def test_what_is_commented_out_in_it_is_in_order_too(tmp_path: Path) -> None:
    text = re.sub(r"^#(\[|\w+ = )", r"\1", (DEPLOY / "config.toml").read_text(), flags=re.M)
    (tmp_path / "config.toml").write_text(text)
    (tmp_path / "status-token").write_text("0123456789abcdef")
    config = read_serve_config(tmp_path / "config.toml", {"CAMERA_PASSWORD": "x"})
    assert config.engines == EngineConfig()
    assert config.status is not None
    assert config.status.token() is not None


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if (tool := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd-analyze is not there")
    # What it starts is not installed here.
    copy = tmp_path / "standin.service"
    copy.write_text((DEPLOY / "standin.service").read_text().replace("/opt/standin/bin/standin", "/bin/true"))
    ended = subprocess.run([tool, "verify", str(copy)], capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout + ended.stderr) == (0, "")


def test_the_unit_is_watched_and_cannot_leak() -> None:
    service = unit()
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) > 0
    assert service["LimitCORE"] == "0"
    assert service["ProtectSystem"] == "strict"
    for name in ("NoNewPrivileges", "PrivateTmp", "ProtectHome", "DynamicUser"):
        assert service[name] == "yes"
    # Its own three seconds are within what systemd allows.
    assert int(service["TimeoutStopSec"]) > SupervisorConfig().drain + 3


def test_the_container_is_not_root_and_says_how_it_is() -> None:
    lines = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    instructions = {line.split()[0]: line for line in lines if line and not line.startswith("#")}
    assert re.fullmatch(r"USER \d+:\d+", instructions["USER"])
    assert "/healthz" in instructions["HEALTHCHECK"]
    assert instructions["ENTRYPOINT"].startswith('ENTRYPOINT ["tini", "--", "standin", "serve"')
    copied = {word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]}
    assert all((ROOT / word).exists() for word in copied)
    # What it installs exists, and brings the status page along.
    extras = next(line for line in lines if line.startswith("ARG EXTRAS=")).partition("=")[2].split(",")
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras) <= set(declared)
    assert "serve" in extras


def test_a_job_on_kubernetes_says_what_the_command_takes() -> None:
    job = yaml.safe_load((DEPLOY / "kuberay.yaml").read_text())["spec"]
    program, verb, *words = shlex.split(job["entrypoint"])
    assert (program, verb) == ("standin", "batch")
    command = typer.main.get_group(app).commands[verb]
    given = command.make_context(verb, words, resilient_parsing=True).params
    assert given["address"] == "auto"
    cluster = job["rayClusterSpec"]
    workers = cluster["workerGroupSpecs"][0]
    # Each pod is one worker's, with all of its cores.
    assert given["workers"] == workers["replicas"]
    [container] = workers["template"]["spec"]["containers"]
    assert str(given["cpus_per_worker"]) == container["resources"]["limits"]["cpu"]
    folders = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert all(Path(path).parents[-2].as_posix() in folders for path in [*given["inputs"], given["output"]])


def test_a_cluster_is_closed_and_of_one_release() -> None:
    cluster = yaml.safe_load((DEPLOY / "kuberay.yaml").read_text())["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
    version = cluster["rayVersion"]
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert f"ray=={version}" in declared["batch"]
    assert f"rayproject/ray:{version}-py3" in (DEPLOY / "Containerfile.ray").read_text()
    policy = yaml.safe_load((DEPLOY / "kuberay-network.yaml").read_text())["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    assert [rule.get("ports") for rule in policy["ingress"]] == [None, [{"port": 8265, "protocol": "TCP"}]]
