"""A warm server, from which the workers of ``execution.processes`` are forked.

    python -m shiftbench.execution.server CONTROL LIFE TRANSFORMERS

Importing torch and open_clip takes seconds of processor time and hundreds of megabytes. The server
does it once; workers that are forked from it start at once and share its memory. It starts no
threads and computes nothing, so that forking it is safe. The arguments are file descriptors, of a
socket through which the driver asks for workers and of a pipe that ends when the driver does, and 1
if a backbone may need the package transformers.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Literal

from shiftbench.core.notices import heed

if TYPE_CHECKING:
    from shiftbench.core.stacks import Place
    from shiftbench.execution.jobs import Job
    from shiftbench.execution.setup import Setup

    Message = (
        tuple[Literal["here"], Place]
        | tuple[Literal["sign"], None]
        | tuple[Literal["step"], tuple[int, int]]
        | tuple[Literal["said"], str]
        | tuple[Literal["ended"], Exception | None]
    )
    """What a worker says: where it writes its stack when it is asked to, that its job goes on,
    steps done and in all, a line that was printed, or that the job has ended and what it raised."""

PRELOADED = ("open_clip", "shiftbench.execution.doing", "shiftbench.execution.workspace")


def main(control_fd: int, life_fd: int, transformers: int) -> None:
    """Import what workers need, and fork one for each connection that the driver sends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver says when it is over
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for workers
    if not transformers:
        _import_open_clip_alone()
    for name in PRELOADED:
        import_module(name)
    with socket.socket(fileno=control_fd) as control:
        while True:
            message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
            if not message:
                return
            (descriptor,) = descriptors
            if os.fork() == 0:
                control.close()
                _live(Connection(descriptor), life_fd)
            os.close(descriptor)


def _import_open_clip_alone() -> None:
    """Import open_clip as where transformers is not installed, which saves a third of the time.

    Only text towers of Hugging Face need it. Whoever imports it after this gets it.
    """
    absent: dict[str, None] = {"transformers": None}
    sys.modules.update(absent)  # type: ignore[arg-type]
    try:
        import_module("open_clip")
    finally:
        del sys.modules["transformers"]


def _live(connection: Connection, life_fd: int) -> None:
    """Be a worker, until the driver closes the connection or is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    heed()
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    threading.Thread(target=_die_with_the_driver, args=(life_fd,), daemon=True).start()
    status = 1
    try:
        _work(connection)
        status = 0
    finally:
        os._exit(status)  # what the server has to tidy up is the server's


def _die_with_the_driver(life_fd: int) -> None:
    os.read(life_fd, 1)  # nothing is ever written: it returns when the driver's end is closed
    os._exit(1)


def _work(connection: Connection) -> None:
    """Do one job after another."""
    import torch

    from shiftbench.core.errors import sendable
    from shiftbench.core.pulse import felt
    from shiftbench.core.stacks import watchable
    from shiftbench.execution.doing import do
    from shiftbench.execution.voice import Voice
    from shiftbench.execution.workspace import Workspace

    lock = threading.RLock()

    def say(*message: object) -> None:
        with lock:  # signs and what is printed may come from any thread
            connection.send(message)

    voice = Voice()
    voice.take_over()
    setup: Setup = connection.recv()
    say("here", watchable())
    torch.set_num_threads(max(1, int(setup.resources.cpus_per_worker)))
    workspace = Workspace(setup, torch.device("cpu"))
    while True:
        try:
            job: Job = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        error: Exception | None = None
        try:
            with voice.heard(partial(say, "said")), felt(partial(say, "sign", None)):
                do(job, workspace, partial(_tell_steps, say))
        except Exception as caught:  # recorded with the run
            error = sendable(caught)
        say("ended", error)


def _tell_steps(say: Callable[[str, tuple[int, int]], None], step: int, steps: int) -> None:
    """Tell of the start of a training, its first, every tenth and its last step."""
    if step % 10 == 0 or step in (1, steps):
        say("step", (step, steps))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
