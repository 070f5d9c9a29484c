"""Joining a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any

from shiftbench.core.cpus import available_cpus
from shiftbench.core.errors import InputError
from shiftbench.core.plugins import development_modules
from shiftbench.core.provenance import submission
from shiftbench.core.stopping import own_handler
from shiftbench.suite.file import Resources

# Ray reads these when it is imported, and passes the RAY_TRAIN_ ones on to its workers.
_DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A thread that uses Ray when the connection has ended must not start a cluster.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    # The controller sees a report only when it polls; 2 s would dominate short runs.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",
    # What runs print reaches the driver by itself, and would do so twice.
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # A worker that asks for no GPU must not see one.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    # Paths in suites are relative to where the command was given, for the trials of a search too.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}


@contextmanager
def session(
    address: str | None, resources: Resources, every: Collection[Resources] = ()
) -> Iterator[None]:
    """A connection to Ray for the duration of the block.

    Args:
        address: of a running cluster; ``None`` joins the one that a submitted job runs in
            (``RAY_ADDRESS``), or else starts a cluster on this machine.
        resources: what the suite asks for.
        every: those, and what its methods ask for.

    Raises:
        InputError: when no cluster answers, or this machine is too small for ``resources``.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    # It tells groups of nodes that are to go, of which this machine is none.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "1" if address else "0")
    import ray

    every = {resources, *every}
    with ExitStack() as stack:
        with own_handler():
            _join(address, resources, stack, groups=len(every) > 1 or resources.workers > 1)
        stack.callback(ray.shutdown)
        if not address:  # a cluster may grow
            for one in every:
                check_resources(ray.cluster_resources(), one)
        yield


def _join(address: str | None, resources: Resources, stack: ExitStack, *, groups: bool) -> None:
    """Connect to the cluster at ``address``, or start one on this machine."""
    import ray

    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    # It prints a traceback for each trial whose process dies; what became of trials is recorded.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    if address:
        _check_listening(address, resources.limits.connect_timeout_s)
        try:
            ray.init(address=address, runtime_env=runtime_environment(address), **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"--address {address}: no Ray cluster answers ({error})") from error
    else:
        port = stack.enter_context(_known_dashboard()) if groups else None
        ray.init(
            address="local",
            num_cpus=available_cpus(),
            object_store_memory=resources.limits.object_store_bytes,
            include_dashboard=groups,
            dashboard_port=port,
            **quiet,
        )


@contextmanager
def _known_dashboard() -> Iterator[int]:
    """A free port for the dashboard of a cluster that is started in the block, which is told of it.

    Train asks the dashboard whether a training lives, and ends its workers if not. Where another
    cluster was started on this machine later, or the variable names one, it would ask that.
    """
    name = "RAY_API_SERVER_ADDRESS"
    before = os.environ.get(name)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    os.environ[name] = f"http://127.0.0.1:{port}"
    try:
        yield port
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def runtime_environment(address: str | None = None) -> dict[str, Any]:
    """What nodes get of this process: variables, and the plugins under development.

    Those of a submitted job are in its working directory.

    Args:
        address: of the cluster, by which its processes know it from others on their machine.
    """
    found: dict[str, Any] = {"env_vars": environment()}
    if address and re.fullmatch(r"[^:/]+:[0-9]+", address):
        found["env_vars"]["RAY_ADDRESS"] = address
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ and (modules := [*_plugins()]):
        found["py_modules"] = modules
    return found


def _plugins() -> Iterator[str]:
    """The packages, or files, of the modules that ``SHIFTBENCH_PLUGINS`` names."""
    for name in sorted({module.partition(".")[0] for module in development_modules()}):
        spec = find_spec(name)
        if spec is not None and spec.submodule_search_locations:
            yield next(iter(spec.submodule_search_locations))
        elif spec is not None and spec.origin is not None:
            yield spec.origin


def environment() -> dict[str, str]:
    """The variables of this process that those on other nodes need too.

    They are the settings ``SHIFTBENCH_…``, the commit of the code among them, and what Ray reads in
    its workers. A submitted job's own variables are left out: they reach its workers anyway, and
    Ray refuses to be told twice.
    """
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    told = (job.get("runtime_env") or {}).get("env_vars") or {}
    found = {name: os.environ[name] for name in _DEFAULTS if name in os.environ} | submission()
    return {name: value for name, value in found.items() if name not in told}


def _check_listening(address: str, timeout_s: float) -> None:
    """See that something listens at ``host:port``; Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return  # "auto" and the like, which Ray looks up
    try:
        socket.create_connection((host, int(port)), timeout=timeout_s).close()
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"--address {address}: no Ray cluster answers ({error})") from error


def check_resources(available: dict[str, float], resources: Resources) -> None:
    """Refuse what this machine can never give.

    Raises:
        InputError: more CPUs or GPUs are asked for than it has.
    """
    for kind, unit, each in (
        ("CPU", "CPUs", resources.cpus_per_worker),
        ("GPU", "GPUs", resources.gpus_per_worker),
        ("memory", "bytes of memory", resources.memory_per_worker),
    ):
        workers = resources.min_workers or resources.workers
        asked, there = each * workers, available.get(kind, 0.0)
        if asked > there:
            raise InputError(
                f"resources: {workers} workers with {each:g} {unit} each are "
                f"{asked:g} {unit}, but this machine has {there:g}"
            )
