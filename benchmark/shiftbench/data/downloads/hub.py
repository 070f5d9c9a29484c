"""Image data sets of the Hugging Face Hub, whose Parquet files are downloaded as they are."""

from __future__ import annotations

from pathlib import Path

from shiftbench.core.errors import InputError, first_line
from shiftbench.data.sources.shards import ENDING

CONVERTED = "refs/convert/parquet"
"""The branch where the Hub keeps what it has made of data sets in other formats."""


def fetch_dataset(name: str, to: Path) -> Path:
    """Download the Parquet files of a data set; what is there already is not downloaded again.

    Args:
        name: ``org/name``.
        to: folder for the files.

    Returns:
        the folder in it that holds them all.

    Raises:
        InputError: it cannot be downloaded, or its files are in several folders.
    """
    from huggingface_hub import HfApi, snapshot_download

    try:
        revision = None
        files = _parquet(HfApi().list_repo_files(name, repo_type="dataset"))
        if not files:
            revision = CONVERTED
            files = _parquet(HfApi().list_repo_files(name, repo_type="dataset", revision=revision))
        folders = sorted({str(Path(file).parent) for file in files})
        if len(folders) != 1:
            raise InputError(
                f"{name}: {ENDING} files in {len(folders)} folders ({', '.join(folders[:5])}); "
                "download those that you want, and name their folder with --parquet"
            )
        snapshot_download(
            name, repo_type="dataset", revision=revision, allow_patterns=files, local_dir=to
        )
    except InputError:
        raise
    # The Hub's clients share no base class for "could not be fetched".
    except Exception as error:
        raise InputError(f"{name}: cannot be downloaded ({first_line(error)})") from error
    return to / folders[0]


def _parquet(files: list[str]) -> list[str]:
    return [file for file in files if file.endswith(ENDING)]
