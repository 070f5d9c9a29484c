"""Jobs on a Ray cluster: submit one, follow it, and learn how it ended."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shiftbench.core.errors import InputError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

STOPPED = 143
"""The exit code of a job that was stopped, which Ray does not record: SIGTERM's."""
STOP_S = 10
"""Seconds that a stopped job has before it is killed; Ray's own 3 s may not suffice to end Ray."""
_SETTLE_S = 0.5
_NOT_YET = "No available agent"
"""What a cluster says to a job in the first seconds of its life."""
_TRIES = 20
_PAUSE_S = 3.0


@dataclass(frozen=True)
class Jobs:
    """The jobs of one cluster.

    Attributes:
        address: of the cluster's dashboard, such as ``http://127.0.0.1:8265``.
    """

    address: str
    _client: JobSubmissionClient

    @classmethod
    def at(cls, address: str | None) -> Jobs:
        """Connect to a cluster's dashboard.

        Args:
            address: ``None`` takes that of ``RAY_API_SERVER_ADDRESS``, as Ray's own commands do.

        Raises:
            InputError: there is no address, nothing answers there, or it wants another token.
        """
        address = address or os.environ.get("RAY_API_SERVER_ADDRESS")
        if not address or not address.startswith(("http://", "https://")):
            given = f"{address} is" if address else "there is"
            raise InputError(
                f"--address: {given} no address of a dashboard, such as http://127.0.0.1:8265"
            )
        address = address.rstrip("/")
        os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray prefers the variable to an argument
        if _has_token():
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient

        for name in ("job.sdk", "dashboard_sdk"):  # they tell of uploads and sockets
            logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
        try:
            client = JobSubmissionClient(address)
        except AuthenticationError as error:
            raise InputError(
                f"--address {address}: the cluster does not accept this token; put the cluster's "
                "in ~/.ray/auth_token, or its path in RAY_AUTH_TOKEN_PATH"
            ) from error
        except (ConnectionError, RuntimeError, OSError) as error:
            raise InputError(f"--address {address}: no Ray dashboard answers ({error})") from error
        return cls(address, client)

    def submit(
        self, job: str, arguments: Sequence[str], archive: Path, variables: Mapping[str, str]
    ) -> None:
        """Start ``shiftbench`` on the cluster's head.

        Args:
            job: its id.
            arguments: of ``shiftbench``.
            archive: its working directory, which all workers of the job see.
            variables: its environment.

        Raises:
            InputError: the cluster refuses it.
        """
        environment = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S), **variables}
        for left in reversed(range(_TRIES)):
            try:
                self._client.submit_job(
                    # Without a shell in between, the exit code is the program's.
                    entrypoint=f"exec python -m shiftbench {shlex.join(arguments)}",
                    submission_id=job,
                    runtime_env={"working_dir": str(archive), "env_vars": environment},
                )
            except (RuntimeError, ValueError, OSError) as error:
                if left and _NOT_YET in str(error):
                    time.sleep(_PAUSE_S)
                    continue
                raise InputError(f"--address {self.address}: {error}") from error
            return

    def follow(self, job: str, write: Callable[[str], Any]) -> int:
        """Pass on what a job prints until it ends; the job does not depend on being followed.

        A broken connection is taken up again where it broke.

        Returns:
            the job's exit code; ``STOPPED`` if it was stopped, 128 + n if signal n killed it.

        Raises:
            InputError: there is no such job, or the cluster no longer answers.
        """
        from aiohttp import ClientError  # Ray's own client passes them on

        shown = Shown(write)
        failures = 0
        while True:
            try:
                asyncio.run(self._pass_on(job, shown))
                details = self._client.get_job_info(job)
            except (RuntimeError, OSError, ClientError) as error:
                failures += 1
                if failures == _TRIES:
                    message = f"{job}: the cluster no longer answers ({error})"
                    raise InputError(message) from error
                time.sleep(_PAUSE_S)
                continue
            failures = 0
            if details.status.is_terminal():
                return _exit_code(details)
            time.sleep(_SETTLE_S)

    async def _pass_on(self, job: str, shown: Shown) -> None:
        """Pass on the output until it ends or the connection breaks."""
        shown.begin()
        async for text in self._client.tail_job_logs(job):
            shown.add(text)


class Shown:
    """An output that may come again from its start, of which each part is to be shown once.

    Args:
        write: shows a part.
    """

    def __init__(self, write: Callable[[str], Any]) -> None:
        self._write = write
        self._shown = 0
        self._seen = 0

    def begin(self) -> None:
        """The output comes from its start."""
        self._seen = 0

    def add(self, text: str) -> None:
        """Show of the next part what was not shown before."""
        self._write(text[max(0, self._shown - self._seen) :])
        self._seen += len(text)
        self._shown = max(self._shown, self._seen)


def _has_token() -> bool:
    named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return named or (Path.home() / ".ray" / "auth_token").is_file()


def _exit_code(details: Any) -> int:
    """The exit code of a job that has ended."""
    code: int | None = details.driver_exit_code
    if str(details.status) == "STOPPED":
        return STOPPED
    if code is None:  # it never ran
        return 0 if str(details.status) == "SUCCEEDED" else 1
    return 128 - code if code < 0 else code
