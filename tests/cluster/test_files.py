"""What ``cluster/`` ships: each file against its schema or linter, and all against each other."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from shiftbench.core.plugins import VARIABLE
from shiftbench.core.version import __version__

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
LAUNCHERS = ("aws.yaml", "gcp.yaml")
SCRIPT = CLUSTER / "slurm" / "shiftbench.sbatch"
SCHEMA = json.loads(Path(__file__).with_name("kuberay.schema.json").read_text())
FILES = sorted(path for path in CLUSTER.rglob("*") if path.is_file())
CREDENTIALS = re.compile(
    r"AKIA[0-9A-Z]{16}|-----BEGIN|\bghp_\w{20}|\bhf_\w{20}|xox[bp]-|auth_token: *[\"']?\w{16}"
    r"|(?:PASSWORD|SECRET|API_KEY|RAY_AUTH_TOKEN)[\"']?[:=] *[\"']?\w{8}"
)
TOOLS = Path(sys.executable).parent


def launcher(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CLUSTER / name).read_text())
    return loaded


def manifests() -> list[dict[str, Any]]:
    files = sorted((CLUSTER / "kuberay").glob("*.yaml"))
    return [document for file in files for document in yaml.safe_load_all(file.read_text())]


@pytest.mark.parametrize("name", LAUNCHERS)
def test_ray_accepts_a_launcher_file(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(launcher(name)))
    misspelt = launcher(name) | {"max_worker": 3}
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config(prepare_config(misspelt))


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_scales_spot_nodes_from_zero_behind_a_head_that_stays(name: str) -> None:
    config = launcher(name)
    head = config["available_node_types"][config["head_node_type"]]
    gpu = config["available_node_types"]["gpu"]
    assert "spot" not in str(head).lower()
    assert "spot" in str(gpu["node_config"]).lower()
    assert (gpu["min_workers"], gpu["resources"]["GPU"], head["resources"]["CPU"]) == (0, 4, 0)
    assert "~/.ray/auth_token" in config["file_mounts"]
    starts = config["head_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in starts


def test_the_manifests_have_the_fields_of_kuberay() -> None:
    kinds = []
    for manifest in manifests():
        jsonschema.validate(manifest, SCHEMA)
        kinds.append(manifest["kind"])
    assert sorted(kinds) == ["NetworkPolicy", "PersistentVolumeClaim", "RayCluster", "RayJob"]


def test_the_schema_finds_what_the_operator_would_refuse_or_overlook() -> None:
    (cluster,) = (found for found in manifests() if found["kind"] == "RayCluster")

    def changed(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
        copied = copy.deepcopy(cluster)
        at: Any = copied
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        return copied

    for path, value in (
        (("spec", "autoscaling"), True),
        (("spec", "workerGroupSpecs", 0, "replicas"), "2"),
        (("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "authOptions", "mode"), "tokens"),
        (("spec", "headGroupSpec", "template", "spec", "securityContext"), {}),
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(changed(path, value), SCHEMA)


def test_manifests_share_the_volume_the_token_and_the_version_of_ray() -> None:
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    found = {manifest["kind"]: manifest for manifest in manifests()}
    claim = found["PersistentVolumeClaim"]["metadata"]["name"]
    for spec in (found["RayCluster"]["spec"], found["RayJob"]["spec"]["rayClusterSpec"]):
        assert spec["rayVersion"] == pinned[1]
        assert spec["authOptions"] == {"mode": "token", "secretName": "shiftbench-token"}
        groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
        for pod in (group["template"]["spec"] for group in groups):
            claims = [volume.get("persistentVolumeClaim") for volume in pod["volumes"]]
            assert {"claimName": claim} in claims
            volumes = {volume["name"] for volume in pod["volumes"]}
            (container,) = pod["containers"]
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    head = found["RayCluster"]["spec"]["headGroupSpec"]["rayStartParams"]
    assert (head["num-cpus"], head["dashboard-host"]) == ("0", "127.0.0.1")


def test_what_ray_starts_with_fits_the_memory_that_a_pod_shares() -> None:
    from ray.scripts.scripts import start

    specs = (manifest["spec"].get("rayClusterSpec", manifest["spec"]) for manifest in manifests())
    clusters = [spec for spec in specs if "headGroupSpec" in spec]
    groups = [
        each for spec in clusters for each in (spec["headGroupSpec"], *spec["workerGroupSpecs"])
    ]
    for group in groups:
        words = [f"--{name}={value}" for name, value in group["rayStartParams"].items()]
        given = start.make_context("start", words).params
        volumes = {volume["name"]: volume for volume in group["template"]["spec"]["volumes"]}
        assert volumes["memory"]["emptyDir"]["sizeLimit"] == "8Gi"
        assert 0 < given["object_store_memory"] < 8 * 2**30
    assert len(groups) == 4


def test_the_slurm_script_passes_bash_and_shellcheck() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    linted = subprocess.run(
        [TOOLS / "shellcheck", "--shell=bash", SCRIPT], capture_output=True, text=True, check=False
    )
    assert linted.returncode == 0, linted.stdout


def test_the_image_passes_hadolint_and_is_pinned_and_not_root() -> None:
    file = CLUSTER / "Dockerfile"
    linted = subprocess.run([TOOLS / "hadolint", file], capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout
    lines = file.read_text().splitlines()
    (base,) = (line.split()[1] for line in lines if line.startswith("FROM "))
    assert re.fullmatch(r"nvidia/cuda:\d+\.\d+\.\d+-\S+", base)
    (user,) = (line.split()[1] for line in lines if line.startswith("USER "))
    users = {
        pod["securityContext"]["runAsUser"] for manifest in manifests() for pod in pods(manifest)
    }
    assert users == {int(user)} != {0}
    assert 'ENTRYPOINT ["shiftbench"]' in lines


def test_the_image_has_what_object_stores_and_a_head_on_aws_need() -> None:
    """All of it pinned: what is installed on top later could not go with it."""
    text = (CLUSTER / "Dockerfile").read_text()
    (program,) = re.findall(r"python -c '(.*)' > /tmp/requirements.txt", text)
    program = program.replace("/tmp/source", str(ROOT))  # noqa: S108
    wanted = subprocess.check_output([sys.executable, "-c", program], text=True).splitlines()
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {"boto3", "gcsfs", "ray[default,train,tune]>=2.60", "s3fs", "simplejpeg"} <= {*wanted}
    assert {"boto3", "gcsfs", "s3fs"} <= pinned
    assert not launcher("aws.yaml")["head_setup_commands"]


@pytest.mark.slow
@pytest.mark.cluster
def test_the_image_builds_and_is_the_command(tmp_path: Path) -> None:
    """Where there is a builder; elsewhere it is linted, above, and no more."""
    asked = (["docker", "info"], ["podman", "info"])
    builders = (words[0] for words in asked if shutil.which(words[0]) and answers(words))
    builder = next(builders, None)
    if builder is None:
        pytest.skip("no docker or podman answers here: the image is linted and not built")
    number = tmp_path / "number"
    file = CLUSTER / "Dockerfile"
    subprocess.run([builder, "build", "--file", file, "--iidfile", number, ROOT], check=True)
    told = subprocess.check_output([builder, "run", "--rm", number.read_text(), "--version"])
    assert told.decode().strip() == f"shiftbench {__version__}"


def answers(words: list[str]) -> bool:
    """True if a command can be run, soon and without an error."""
    return subprocess.run(words, capture_output=True, timeout=30, check=False).returncode == 0


def pods(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    spec = manifest["spec"].get("rayClusterSpec", manifest["spec"])
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]] if "headGroupSpec" in spec else []
    return [group["template"]["spec"] for group in groups]


def test_the_image_is_built_of_what_it_needs() -> None:
    """Whatever ``pip install`` reads is let through, and nothing that is ignored by git."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    assert lines[0] == "*"
    let_through = {line[1:] for line in lines if line.startswith("!")}
    assert let_through == {
        *("benchmark", "suites", "results/published"),
        *("constraints.txt", "pyproject.toml", "README.md", "LICENSE"),
    }
    assert all((ROOT / name).exists() for name in let_through)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_file_holds_a_credential_opens_a_dashboard_or_has_another_version(file: Path) -> None:
    text = file.read_text()
    assert not CREDENTIALS.search(text)
    assert "0.0.0.0" not in text  # noqa: S104
    assert "RAY_AUTH_MODE=disabled" not in text
    assert VARIABLE not in text or file.suffix == ".md"  # plugins are named by the user alone
    assert {*re.findall(r"shiftbench:(\d[\d.]*\d)", text)} <= {__version__}


def test_the_rule_on_credentials_finds_some() -> None:
    for text in (
        "AKIAABCDEFGHIJKLMNOP",
        "auth_token: 0123456789abcdef",
        "RAY_AUTH_TOKEN=0123456789abcdef",
        "-----BEGIN PRIVATE KEY-----",
    ):
        assert CREDENTIALS.search(text)


PAGES = [
    CLUSTER / "README.md",
    ROOT / "docs" / "tutorial" / "cluster.md",
    ROOT / "docs/security.md",
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_of_a_page_are_there(page: Path) -> None:
    named = re.findall(r"(?<![\w/.])cluster/[\w./-]+\w", page.read_text())
    assert named
    assert all((ROOT / name).exists() for name in named)
