"""What Ray's launcher makes of ``aws.yaml`` and ``gcp.yaml`` on a machine, which is played here."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from ray.autoscaler._private.command_runner import SSHCommandRunner
from ray.autoscaler._private.updater import NodeUpdater
from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.scripts.scripts import start

from tests.cluster.test_files import CLUSTER, LAUNCHERS, launcher

MOUNTED = "/tmp/ray_tmp_mount"  # noqa: S108
TOKEN = f"{MOUNTED}/shiftbench/~/.ray/auth_token"


def environment() -> list[str]:
    """The variables of the image, as ``docker inspect`` shows them."""
    text = (CLUSTER / "Dockerfile").read_text().replace("\\\n", " ")
    lines = re.findall(r"^ENV (.*)$", text, re.MULTILINE)
    return [word for line in lines for word in line.split() if "=" in word]


class Machine:
    """A new machine to which the launcher speaks; takes the place of ``subprocess``."""

    DEVNULL = None

    def __init__(self) -> None:
        self.commands: list[str] = []

    def check_call(self, words: list[str], **_: object) -> int:
        self.commands.append(" ".join(words))
        return 0

    def check_output(self, words: list[str]) -> bytes:
        self.commands.append(words[-1])
        if "Config.Env" in words[-1]:
            return json.dumps(environment()).encode()
        return b"/home/shiftbench" if "printenv HOME" in words[-1] else b""

    def place(self, text: str) -> int:
        """Where in the order of all commands the one stands that has a text."""
        (place,) = (i for i, command in enumerate(self.commands) if text in command)
        return place


class Provider(NodeProvider):
    """Has one machine."""

    def __init__(self) -> None:
        super().__init__({}, "shiftbench")
        self.tags: dict[str, str] = {}

    def node_tags(self, node_id: str) -> dict[str, str]:
        return self.tags

    def set_node_tags(self, node_id: str, tags: dict[str, str]) -> None:
        self.tags.update(tags)

    def external_ip(self, node_id: str) -> str:
        return "203.0.113.1"

    def is_terminated(self, node_id: str) -> bool:
        return False


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a token; nothing else is written by the launcher."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(SSHCommandRunner, "_ensure_ssh_control_path", lambda _: None)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").touch()
    return tmp_path


def started(name: str, node: str) -> Machine:
    """A machine that the launcher has made a node of this type of."""
    config = AutoscalingConfig(launcher(name), skip_content_hash=True)
    part, machine = "head" if node == "head" else "worker", Machine()
    updater = NodeUpdater(
        node_id="node",
        provider_config={},
        provider=Provider(),
        auth_config=config.get_config("auth"),
        cluster_name=config.get_config("cluster_name"),
        file_mounts=config.get_config("file_mounts"),
        initialization_commands=config.get_initialization_commands(node),
        setup_commands=config.get_config(f"{part}_setup_commands"),
        ray_start_commands=config.get_config(f"{part}_start_ray_commands"),
        runtime_hash="",
        file_mounts_contents_hash="",
        is_head_node=node == "head",
        process_runner=machine,
        docker_config=config.get_docker_config(node),
    )
    updater.do_update()
    return machine


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("node", ["head", "gpu"])
@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_token_is_where_ray_looks_for_it_and_its_user_may_read_it(name: str, node: str) -> None:
    machine = started(name, node)
    copied = next(i for i, command in enumerate(machine.commands) if command.endswith(TOKEN))
    start = machine.place("docker run")
    assert copied < machine.place("chgrp 10001") < start
    assert copied < machine.place("chmod 640") < start
    assert f"-v {TOKEN}:/home/shiftbench/.ray/auth_token " in machine.commands[start]
    assert start < machine.place("ray start")


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_commands_on_the_token_find_it(name: str, tmp_path: Path) -> None:
    """Of a shell's reading: the ``~`` is a folder's name here."""
    token = Path(TOKEN.replace(MOUNTED, str(tmp_path)))
    token.parent.mkdir(parents=True)
    token.touch()
    commands = [text for text in launcher(name)["initialization_commands"] if MOUNTED in text]
    for text in commands:
        shown = text.replace("sudo", "echo").replace(MOUNTED, str(tmp_path))
        assert subprocess.check_output(["bash", "-c", shown], text=True).split()[-1] == str(token)
    assert len(commands) == 2


def test_a_machine_of_amazon_is_named_its_image() -> None:
    for node in launcher("aws.yaml")["available_node_types"].values():
        assert node["node_config"]["ImageId"] == "AMI"


def test_a_disk_of_google_is_of_the_zone_and_of_a_type_that_gpus_take() -> None:
    config = launcher("gcp.yaml")
    zone = config["provider"]["availability_zone"]
    for node in config["available_node_types"].values():
        (disk,) = node["node_config"]["disks"]
        assert disk["initializeParams"]["diskType"] == f"zones/{zone}/diskTypes/pd-balanced"


@pytest.mark.usefixtures("home")
def test_a_machine_of_google_waits_for_its_driver_before_ray_looks_for_it() -> None:
    machine = started("gcp.yaml", "gpu")
    assert machine.place("until nvidia-smi") < machine.place("docker info")


@pytest.mark.parametrize(("vendor", "looks"), [("0x10de", 3), ("0x1ae0", 0)])
def test_the_wait_for_a_driver_ends(vendor: str, looks: int, tmp_path: Path) -> None:
    """When the third look finds it; at once where there is no GPU."""
    (tmp_path / "0").mkdir()
    (tmp_path / "0/vendor").write_text(f"{vendor}\n")
    programs = {
        "sleep": "exit",
        "nvidia-smi": 'echo look >> "$LOOKS"; [ "$(wc -l < "$LOOKS")" -ge 3 ]',
    }
    for program, text in programs.items():
        (tmp_path / program).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / program).chmod(0o755)
    (tmp_path / "looks").touch()
    commands = launcher("gcp.yaml")["initialization_commands"]
    (command,) = (text for text in commands if "nvidia-smi" in text)
    command = command.replace("/sys/bus/pci/devices", str(tmp_path))
    own = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOOKS": str(tmp_path / "looks")}
    subprocess.run(["bash", "-c", command], env=os.environ | own, check=True, timeout=60)
    assert len((tmp_path / "looks").read_text().splitlines()) == looks


@pytest.mark.parametrize("part", ["head", "worker"])
@pytest.mark.parametrize("name", LAUNCHERS)
def test_ray_starts_with_objects_that_fit_the_shared_memory(name: str, part: str) -> None:
    config = launcher(name)
    words = shlex.split(config[f"{part}_start_ray_commands"][-1])
    given = start.make_context("start", words[words.index("start") + 1 :]).params
    assert given["head"] == (part == "head")
    (memory,) = (text for text in config["docker"]["run_options"] if "--shm-size" in text)
    gigabytes = int(memory.removeprefix("--shm-size=").removesuffix("g"))
    assert 0 < given["object_store_memory"] < gigabytes * 2**30
