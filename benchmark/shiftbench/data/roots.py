"""The data root: the folder or URI that ``--data`` or a suite's ``data`` stands for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shiftbench.core.errors import InputError
from shiftbench.core.locations import CACHE_VARIABLE, cache_dir, is_remote, refuse_credentials


def resolve(data: str, progress: Callable[[str], None] | None = None) -> str:
    """Return the data root that ``data`` stands for.

    Args:
        data: a folder, a URI, or ``miniature``, which is drawn into the cache on first use.
        progress: called with the name of each data set while the miniature world is drawn.

    Raises:
        InputError: there is no such folder, or a URI holds credentials.
    """
    if data == "miniature":
        from shiftbench.data.miniature.definition import VERSION
        from shiftbench.data.miniature.layout import generate

        root = cache_dir() / f"miniature-{VERSION}"
        try:
            generate(root, progress)
        except OSError as error:
            raise InputError(
                f"the miniature world cannot be drawn into {root}: {error}; "
                f"set {CACHE_VARIABLE} to a folder that can be written"
            ) from error
        return str(root)
    if is_remote(data):
        refuse_credentials(data)
        return data.rstrip("/")
    root = Path(data).expanduser()
    if not root.is_dir():
        raise InputError(f'data: "{data}" is not a folder; give one, a URI, or "miniature"')
    return str(root)
