"""Processes that help this one."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext

PRELOADED = ("torch.utils.data", "PIL.Image", "shiftbench.data.loading", "shiftbench.data.store")


def forkserver() -> ForkServerContext:
    """Where helpers are forked: from a server, as forking a process with threads can deadlock.

    The server has imported what they need, so they start at once and share its memory.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context
