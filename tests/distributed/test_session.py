"""What a connection to a cluster takes with it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from shiftbench.core.provenance import SUBMITTED
from shiftbench.distributed import session
from shiftbench.distributed.session import environment, runtime_environment
from shiftbench.suite.file import Resources


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SHIFTBENCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    monkeypatch.setenv(SUBMITTED, "abcdef0")


def test_settings_and_the_commit_go_to_every_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIFTBENCH_CACHE", "/local/cache")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not ours to send")
    found = environment()
    assert found["SHIFTBENCH_CACHE"] == "/local/cache"
    assert found[SUBMITTED] == "abcdef0"
    assert not [name for name in found if not name.startswith(("SHIFTBENCH_", "RAY_", "TUNE_"))]


def test_the_commit_is_that_of_the_checkout_where_none_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(SUBMITTED)
    monkeypatch.setattr("shiftbench.core.provenance.git_state", lambda folder: ("c0ffee0", True))
    assert environment()[SUBMITTED] == "c0ffee0-dirty"
    monkeypatch.setattr("shiftbench.core.provenance.git_state", lambda folder: (None, None))
    assert SUBMITTED not in environment()


def test_what_a_submitted_job_was_told_is_not_told_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIFTBENCH_CACHE", "/local/cache")
    job = {"runtime_env": {"env_vars": {SUBMITTED: "abcdef0"}}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    assert environment().keys() & {SUBMITTED, "SHIFTBENCH_CACHE"} == {"SHIFTBENCH_CACHE"}


@pytest.mark.parametrize("address", ["auto", "ray://10.0.0.1:10001", None])
def test_nodes_are_told_which_cluster_they_are_of(address: str | None) -> None:
    """On their machine may be another, which Train would ask whether a training lives."""
    assert "RAY_ADDRESS" not in runtime_environment(address)["env_vars"]
    assert runtime_environment("10.0.0.1:6379")["env_vars"]["RAY_ADDRESS"] == "10.0.0.1:6379"


@pytest.mark.parametrize("before", [None, "http://elsewhere:8265"])
def test_a_cluster_of_this_machine_asks_its_own_dashboard(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, asked = "RAY_API_SERVER_ADDRESS", []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if before is None:
        monkeypatch.delenv(name, raising=False)
    else:
        monkeypatch.setenv(name, before)

    def init(**options: object) -> None:
        asked.append((os.environ[name], options["dashboard_port"]))

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2.0, "memory": 2.0**40})
    with session.session(None, Resources(workers=2)):
        ((url, port),) = asked
        assert url == os.environ[name] == f"http://127.0.0.1:{port}"
    assert os.environ.get(name) == before


def test_plugins_under_development_go_along(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "py_modules" not in runtime_environment()
    (tmp_path / "probe_package").mkdir()
    (tmp_path / "probe_package" / "__init__.py").touch()
    (tmp_path / "probe_package" / "inner.py").touch()
    (tmp_path / "probe_module.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    named = "one=probe_package.inner:One,metrics/two=probe_module:Two,three=probe_module:Three"
    monkeypatch.setenv("SHIFTBENCH_PLUGINS", named)
    found = runtime_environment()
    assert found["py_modules"] == [
        *(str(tmp_path / "probe_module.py"), str(tmp_path / "probe_package"))
    ]
    assert found["env_vars"]["SHIFTBENCH_PLUGINS"] == named
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")  # they came with the job
    assert "py_modules" not in runtime_environment()
