"""Where Ray keeps what it keeps of a group or a search while that lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shiftbench.core.mirror import shared


@contextmanager
def shared_storage(parent: Path, prefix: str) -> Iterator[dict[str, Any]]:
    """A folder that all nodes see, as Ray's ``RunConfig`` takes it; it is deleted afterwards.

    Args:
        parent: of the results, which may be in an object store.
        prefix: of the folder's name.
    """
    with shared(parent, prefix) as (path, remote):
        if remote is None:
            yield {"storage_path": path}
            return
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        system, folder = remote.opened(path)
        yield {"storage_path": folder, "storage_filesystem": PyFileSystem(FSSpecHandler(system))}
