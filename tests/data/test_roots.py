"""The data root, the cache directory, and local and remote files alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from shiftbench.core import locations
from shiftbench.core.errors import InputError
from shiftbench.core.locations import DirectoryEntry
from shiftbench.data import roots
from shiftbench.data.miniature import layout
from shiftbench.data.miniature.definition import VERSION


def test_cache_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHIFTBENCH_CACHE", str(tmp_path / "here"))
    assert locations.cache_dir() == tmp_path / "here"
    monkeypatch.delenv("SHIFTBENCH_CACHE")
    assert locations.cache_dir() == Path.home() / ".cache" / "shiftbench"


def test_resolve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert roots.resolve(str(tmp_path)) == str(tmp_path)
    assert roots.resolve("s3://bucket/data/") == "s3://bucket/data"
    with pytest.raises(InputError, match="nowhere"):
        roots.resolve(str(tmp_path / "nowhere"))
    drawn: list[Path] = []
    monkeypatch.setattr(layout, "generate", lambda root, progress: drawn.append(root))
    monkeypatch.setenv("SHIFTBENCH_CACHE", str(tmp_path))
    assert roots.resolve("miniature") == str(tmp_path / f"miniature-{VERSION}")
    assert drawn == [tmp_path / f"miniature-{VERSION}"]


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SHIFTBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="SHIFTBENCH_CACHE"):
        roots.resolve("miniature")


def test_join() -> None:
    assert locations.join("/data/", "a/b") == "/data/a/b"
    assert locations.join("s3://bucket", "a") == "s3://bucket/a"
    assert locations.join("/data", "/other/a") == "/other/a"
    assert locations.join("/data", "gs://bucket/a") == "gs://bucket/a"


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_local_and_remote_files_alike(tmp_path: Path, prefix: str) -> None:
    (tmp_path / "b.txt").write_bytes(b"12345")
    (tmp_path / "a").mkdir()
    (tmp_path / ".hidden").write_bytes(b"")
    root = f"{prefix}{tmp_path}"
    assert locations.entries(root) == [
        DirectoryEntry("a", 0, True),
        DirectoryEntry("b.txt", 5, False),
    ]
    assert locations.kind_of(f"{root}/a") == "folder"
    assert locations.kind_of(f"{root}/b.txt") == "file"
    assert locations.kind_of(f"{root}/c") is None
    assert locations.read(f"{root}/b.txt") == b"12345"
    for read in (locations.read, locations.file_digest, locations.entries):
        with pytest.raises(InputError, match=r"/c"):
            read(f"{root}/c")


def test_an_unknown_kind_of_uri() -> None:
    with pytest.raises(InputError, match="nope://x"):
        locations.filesystem("nope://x/y")


SECRETS = [
    ("s3://key:secret@bucket/data", "s3://…@bucket/data"),
    ("S3://key:sec/ret@bucket/data", "S3://…@bucket/data"),  # as those of AWS often are
    ("s3://key:secret/data", "s3://…/data"),
    ("gs://secret@bucket/data", "gs://…@bucket/data"),
    ("https://secret@host/data", "https://…@host/data"),
    ("sftp://ann:secret@host:22/data", "sftp://…@host:22/data"),
    ("s3://bucket/data?region=eu&secret_key=secret", "s3://bucket/data?region=eu&secret_key=…"),
    ("https://host/a?AWSAccessKeyId=secret", "https://host/a?AWSAccessKeyId=…"),
    ("https://host/a?X-Amz-Signature=secret&b=2", "https://host/a?X-Amz-Signature=…&b=2"),
]


@pytest.mark.parametrize(("url", "shown"), SECRETS)
def test_a_uri_with_credentials_is_refused_without_showing_them(url: str, shown: str) -> None:
    assert locations.without_credentials(f"at {url} or") == f"at {shown} or"
    for use in (roots.resolve, locations.filesystem, locations.read, locations.entries):
        with pytest.raises(InputError, match="must hold no credentials") as raised:
            use(url)
        assert str(raised.value).startswith(f"{shown}: a URL is shown")


@pytest.mark.parametrize(
    "text",
    [
        *("s3://bucket/a@b:c?region=eu&endpoint_override=h:9000", "gs://anonymous@bucket/data"),
        *("http://127.0.0.1:8265", "http://[::1]:8265/a", "hf://datasets/ann/x@main/y"),
        *("sftp://ann@host:22/a", "abfs://container@account.net/a", "file:///a/b", "s3://"),
        *("/data/a@b:c", "a photo of a {}.", ""),
    ],
)
def test_other_texts_hold_no_credentials(text: str) -> None:
    locations.refuse_credentials(text)
    assert locations.without_credentials(text) == text


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3_000_000])
def test_digests_of_small_files_depend_on_every_byte(tmp_path: Path, size: int) -> None:
    file = tmp_path / "a"
    content = bytearray(size)
    file.write_bytes(content)
    digests = {locations.file_digest(str(file))}
    places = range(0, size, max(size // 50, 1))
    for place in places:
        content[place] = 1
        file.write_bytes(content)
        digests.add(locations.file_digest(str(file)))
    assert len(digests) == 1 + len(places)


def test_digests_of_large_files_depend_on_size_and_spread_blocks(tmp_path: Path) -> None:
    file = tmp_path / "a"
    digests = set()
    for size, byte in ((20_000_000, 0), (20_000_000, 1), (20_000_001, 0)):
        file.write_bytes(bytes([byte]) * size)
        digests.add(locations.file_digest(str(file)))
    assert len(digests) == 3
