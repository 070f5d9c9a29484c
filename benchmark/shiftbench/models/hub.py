"""The Hugging Face Hub and its cache: what is there, what can be fetched, and fetching it.

The cache is the one that open_clip, transformers and every other client share (``HF_HOME``). No
torch.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from shiftbench.core.errors import InputError, one_line

PATIENCE = 5.0
"""Seconds that the Hub, or another server, has to say whether it has a file."""

BESIDE_WEIGHTS = ("*.json", "*.txt", "*.model")
"""Configurations and tokenizers: fetched with every model."""

WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""Names under which a folder has its weights, the first that is there counts: as in open_clip."""

INDEX = "model.safetensors.index.json"
"""Lists the files of weights that transformers has split."""


class Source(NamedTuple):
    """A file of weights that can be downloaded: one of a Hub repository, or at a URL.

    Attributes:
        repo: of the Hub; empty for a URL.
        files: its name, or several of which the first that is there is meant.
        url: where ``repo`` is empty.
    """

    repo: str
    files: tuple[str, ...] = ()
    url: str = ""

    def __str__(self) -> str:
        return self.repo or self.url


def source_of(hub: str, url: str) -> Source:
    """The source of an entry of open_clip's table, by its ``hf_hub`` and its ``url``."""
    repo, _, file = hub.rpartition("/")
    if not repo:
        return Source("", (), url)
    if not file:
        return Source(repo, (WEIGHTS[0], WEIGHTS[2]))
    stem, dot, suffix = file.rpartition(".")
    safe = (f"{stem}.safetensors",) if dot + suffix in (".bin", ".pth") else ()
    return Source(repo, (*safe, file))


def cached(source: Source) -> Path | None:
    """The file on this machine, where it has been downloaded before."""
    if not source.repo:
        path = Path("~/.cache/clip").expanduser() / Path(source.url).name  # open_clip's folder
        return path if source.url and path.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    for file in source.files:
        found = try_to_load_from_cache(source.repo, file)
        if isinstance(found, str):
            return Path(found)
    return None


def unreachable(source: Source) -> str | None:
    """Why a source cannot be downloaded now; ``None`` where it can. At most some seconds."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE and source.repo:
        return "HF_HUB_OFFLINE is set"
    reason = "it has no address"
    try:
        if not source.repo:
            request = urllib.request.Request(source.url, method="HEAD")  # noqa: S310
            urllib.request.urlopen(request, timeout=PATIENCE).close()  # noqa: S310
            return None
        for file in source.files:
            try:
                get_hf_file_metadata(hf_hub_url(source.repo, file), timeout=PATIENCE)
                return None
            except HfHubHTTPError as error:  # this file is not there: another may be
                reason = one_line(error)
    # The Hub's clients share no base class for "there is no network".
    except Exception as error:
        reason = one_line(error)
    return reason


def split_revision(name: str) -> tuple[str, str | None]:
    """``org/name`` or ``org/name@revision``: the repository and its revision."""
    repo, _, revision = name.partition("@")
    return repo, revision or None


def snapshot(name: str, files: Sequence[str]) -> Path | None:
    """The folder of a repository's files in the cache.

    Args:
        name: ``org/name``, or ``org/name@revision``.
        files: of which one must be there; others may be missing.

    Returns:
        the folder; ``None`` where none of them is there.

    Raises:
        InputError: not the name of a repository.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    repo, revision = split_revision(name)
    try:
        found = (try_to_load_from_cache(repo, file, revision=revision) for file in files)
        return next((Path(path).parent for path in found if isinstance(path, str)), None)
    except HFValidationError as error:
        raise InputError(f"hf-hub:{name}: {one_line(error)}") from error


def fetch_snapshot(name: str) -> Path:
    """Download what a model is made of, weights of one format alone; its folder in the cache.

    Args:
        name: ``org/name``, or ``org/name@revision``.

    Raises:
        InputError: it cannot be downloaded, or has no weights.
    """
    from huggingface_hub import HfApi, snapshot_download

    repo, revision = split_revision(name)
    try:
        weights = _weights_among(HfApi().list_repo_files(repo, revision=revision))
        if not weights:
            raise InputError(f"hf-hub:{name}: no weights among its files")
        patterns = [*BESIDE_WEIGHTS, *weights]
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except InputError:
        raise
    # The Hub's clients share no base class for "could not be fetched".
    except Exception as error:
        raise InputError(f"hf-hub:{name}: cannot be downloaded ({one_line(error)})") from error


def push(folder: Path, repo: str, *, private: bool = False) -> str:
    """Upload a folder to a model repository of the Hub, which is made where there is none.

    Whoever is logged in (``hf auth login``, or ``HF_TOKEN``) needs to be allowed to write there.

    Args:
        folder: whose files to upload.
        repo: ``org/name``.
        private: whether a repository that is made is private.

    Returns:
        the address of the commit.

    Raises:
        InputError: it cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi, constants

    endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT)
    try:
        urllib.request.urlopen(endpoint, timeout=PATIENCE).close()  # noqa: S310
    except urllib.error.HTTPError:
        pass  # somebody is there
    except OSError as error:
        raise InputError(f"{repo}: {endpoint} cannot be reached ({one_line(error)})") from error
    api = HfApi(endpoint=endpoint)
    try:
        api.create_repo(repo, private=private or None, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message="Model exported by ShiftBench"
        )
    # The Hub's clients share no base class for "refused".
    except Exception as error:
        raise InputError(f"{repo}: not uploaded: {one_line(error)}") from error
    return str(done.commit_url)


def _weights_among(files: Sequence[str]) -> list[str]:
    """The files of weights that are to be fetched."""
    if found := next((name for name in WEIGHTS if name in files), None):
        return [found]
    return ["model-*.safetensors"] if INDEX in files else []
