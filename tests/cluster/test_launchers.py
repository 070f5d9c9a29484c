"""What Ray's launcher makes of ``aws.yaml`` and ``gcp.yaml`` on a machine, which is played here."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from ray.autoscaler._private.command_runner import SSHCommandRunner
from ray.autoscaler._private.updater import NodeUpdater
from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

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
