"""Bundles: what comes out goes in elsewhere, and nothing else does."""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shiftbench.core.errors import InputError
from shiftbench.core.provenance import Provenance
from shiftbench.evaluation import predictions
from shiftbench.evaluation.scoring import rescore
from shiftbench.leaderboard import store
from shiftbench.leaderboard.bundles import layout, row_checks
from shiftbench.leaderboard.bundles.archive import opened as opened_archive
from shiftbench.leaderboard.bundles.contents import Contents
from shiftbench.leaderboard.bundles.export import export
from shiftbench.leaderboard.bundles.layout import canonical, make_manifest, summary
from shiftbench.leaderboard.bundles.public import clean, clean_value, public
from shiftbench.leaderboard.bundles.take import take
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import VERSION_KEY, failed
from shiftbench.leaderboard.verify import select, verify_run

from tests.leaderboard.records import info
from tests.leaderboard.test_verify import HERE, image_set, rewrite, store_run

LATER = datetime(2031, 1, 2, 3, 4, 5, tzinfo=UTC)
FEW = {"id-val": "accuracy", "id-test": "accuracy", "fmow": "worst-region"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, one that builds on it, and one that failed."""
    folder = tmp_path_factory.mktemp("results")
    store_run(folder, "a1", sets=FEW)
    store_run(folder, "b2", ("0", "1"), sets=FEW, parents=[("full", "a1")], label="wise-ft")
    store.write_run(folder, "c3", failed(info("c3"), "cannot read /home/ann/x"))
    return folder


@pytest.fixture(scope="module")
def archive(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("bundle") / "a.zip"
    export(results, ["b2"], file)
    return file


def members(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def packed(file: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w") as opened:
        for name, data in content.items():
            opened.writestr(name, data)
    return file


def sealed(content: dict[str, bytes]) -> dict[str, bytes]:
    """The members with a manifest that fits them: what a forger would write."""
    rest = {name: data for name, data in content.items() if name != "manifest.json"}
    measured = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in rest.items()
    }
    manifest = make_manifest(measured)
    return rest | {"manifest.json": canonical(manifest)}


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def changed(data: bytes, column: str, change: Any, where: int = 0) -> bytes:
    """A Parquet file with another value in one cell."""
    table = pq.read_table(io.BytesIO(data))
    values = table[column].to_pylist()
    values[where] = change(values[where]) if callable(change) else change
    position = table.schema.get_field_index(column)
    field = table.schema.field(position)
    return parquet(table.set_column(position, field, pa.array(values, field.type)))


def is_refused(file: Path, into: Path, message: str | None = None) -> None:
    before = snapshot(into)
    with pytest.raises(InputError, match=message) as refused:
        take(file, into)
    assert str(refused.value).startswith(f"{file}: ")
    assert "\n" not in str(refused.value)
    assert snapshot(into) == before


def snapshot(folder: Path) -> dict[Path, bytes] | None:
    if not folder.exists():
        return None
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_marks(table: pa.Table) -> pa.Table:
    return table.drop_columns(["unchecked"])


# There and back


def test_what_goes_out_comes_in(results, tmp_path):
    file, elsewhere = tmp_path / "a.zip", tmp_path / "elsewhere"
    exported = export(results, ["b2"], file)
    assert exported.run_ids == ("a1", "b2")  # with what it builds on
    taken = take(file, elsewhere)
    assert (taken.new, taken.known) == (("a1", "b2"), ())
    there = store.read(elsewhere)
    assert set(there["unchecked"].to_pylist()) == {"labels not checked"}  # there was nothing to
    assert without_marks(there).equals(without_marks(store.read(results, ["a1", "b2"])))
    for run_id in taken.new:
        there, here = (RunFolder.of(f, run_id).predictions for f in (results, elsewhere))
        assert predictions.read(here).equals(predictions.read(there))
        assert verify_run(elsewhere, run_id).problems == ()
    assert not [path for path in elsewhere.iterdir() if path.name.startswith(".")]
    again = take(file, elsewhere)
    assert (again.new, again.known) == ((), ("a1", "b2"))
    assert take(file, results).new == ()


def test_the_same_content_is_the_same_bytes(results, tmp_path):
    files = [tmp_path / f"{name}.zip" for name in "ab"]
    first = export(results, ["a1", "b2"], files[0])
    elsewhere = tmp_path / "elsewhere"
    take(files[0], elsewhere)
    second = export(elsewhere, ["b2", "a1"], files[1])
    assert files[0].read_bytes() == files[1].read_bytes()
    assert first.digest == second.digest


def test_what_is_in_it(archive):
    content = members(archive)
    assert sorted(content) == [
        "manifest.json",
        "predictions/a1.parquet",
        "predictions/b2.parquet",
        "rows/a1.parquet",
        "rows/b2.parquet",
        "runs.json",
    ]
    manifest = json.loads(content["manifest.json"])
    assert manifest["members"].keys() == content.keys() - {"manifest.json"}
    for name, member in manifest["members"].items():
        assert member["bytes"] == len(content[name])
        assert member["sha256"] == hashlib.sha256(content[name]).hexdigest()
    runs = json.loads(content["runs.json"])
    assert runs["b2"]["label"] == "wise-ft"
    assert runs["b2"]["config"] == {"lr": 1e-5}
    assert runs["a1"]["versions"] == dict(HERE.versions)


def test_only_what_is_done_and_recomputes_goes_out(results, tmp_path):
    assert select(store.read(results)) == ["a1", "b2"]
    with pytest.raises(InputError, match=r"must end in \.zip"):
        export(results, ["a1"], tmp_path / "a.tar")
    store_run(tmp_path / "r", "a1", sets=FEW)
    rewrite(tmp_path / "r", "a1", "value", lambda value: value + 0.01)
    with pytest.raises(InputError, match="run a1: id-val, accuracy: value is"):
        export(tmp_path / "r", ["a1"], tmp_path / "a.zip")
    RunFolder.of(tmp_path / "r", "a1").predictions.unlink()
    with pytest.raises(InputError, match="no predictions"):
        export(tmp_path / "r", ["a1"], tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_columns_that_are_not_known_go_out_and_come_in(results, tmp_path):
    """Rows that a later 3.x wrote: its columns are kept, and cleaned as text."""
    more = tmp_path / "more"
    store_run(more, "a1", sets=FEW)
    table = store.read(more)
    n = len(table)
    table = table.append_column("energy", pa.array([1.5] * n))
    table = table.append_column("log", pa.array(["/home/ann/log.txt"] * n))
    store.write_run(more, "a1", table)

    export(more, ["a1"], tmp_path / "a.zip")
    take(tmp_path / "a.zip", tmp_path / "there")

    there = store.read(tmp_path / "there")
    assert there["energy"].to_pylist() == [1.5] * n
    assert there["log"].to_pylist() == ["…/log.txt"] * n
    assert take(tmp_path / "a.zip", more).known == ("a1",)

    content = members(tmp_path / "a.zip")
    runs = json.loads(content["runs.json"])
    said = sealed(content | {"runs.json": canonical({"a1": runs["a1"] | {"energy": 1.5}})})
    assert take(packed(tmp_path / "b.zip", said), tmp_path / "b").new == ("a1",)
    said = sealed(content | {"runs.json": canonical({"a1": runs["a1"] | {"energy": 9.5}})})
    is_refused(packed(tmp_path / "c.zip", said), tmp_path / "c", "does not say what the rows say")
    assert runs["a1"]["transductive"] is None  # an older bundle has no such column
    for name, accepted in (("transductive", True), ("label", False)):
        fewer = canonical({"a1": {k: v for k, v in runs["a1"].items() if k != name}})
        file = packed(tmp_path / f"no-{name}.zip", sealed(content | {"runs.json": fewer}))
        if accepted:
            assert take(file, tmp_path / name).new == ("a1",)
        else:
            is_refused(file, tmp_path / name, "does not say what the rows say")
    nested = pq.read_table(io.BytesIO(content["rows/a1.parquet"]))
    nested = parquet(nested.append_column("deep", pa.array([[1]] * n)))
    file = packed(tmp_path / "d.zip", sealed(content | {"rows/a1.parquet": nested}))
    is_refused(file, tmp_path / "d", 'its column "deep" is of the type list')


# What must not go out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/ann/models/vit", "…/vit"),
        ("/home/ann lee/models/vit b", "…/vit b"),
        ("~/models/vit", "…/vit"),
        ("C:\\Users\\ann\\vit", "…/vit"),
        ("file:///home/ann/vit", "…/vit"),
        ("imagenet-r: /data/imagenet-r lacks 3 images", "imagenet-r: …/imagenet-r lacks 3 images"),
        ("read '/data/a/b.json', not (/data/c)", "read '…/b.json', not (…/c)"),
        ("path=/data/a", "path=…/a"),
        ("s3://ann:key@bucket/a/b", "s3://…@bucket/a/b"),
        ("s3://ann:ke/y@bucket/a/b", "s3://…@bucket/a/b"),
        ("https://x.org/a?token=1&b=2", "https://x.org/a?…"),
        *((text, text) for text in ("openai/ViT-B-16", "macro-F1 / accuracy", "a/b", "./m", "1/2")),
        *((text, text) for text in ("Clopper-Pearson", "s3://bucket/a", "CPU @ 2.60GHz", "")),
    ],
)
def test_absolute_paths_and_credentials_are_taken_out(text, expected):
    assert clean(text) == expected
    assert clean(expected) == expected


def test_the_home_folder_is_taken_out(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/srv/ann lee"))
    assert clean("see /srv/ann lee/deep/x for more") == "see …/x for more"
    monkeypatch.setattr(Path, "home", lambda: Path("/"))
    assert clean("a/b") == "a/b"


def test_settings_are_cleaned_deeply():
    value = {"init": ["/a/b", {"api_key": "xyz", "text_tokens": 4}], "n": 1.5, "none": None}
    assert clean_value(value) == {
        "init": ["…/b", {"api_key": "…", "text_tokens": 4}],
        "n": 1.5,
        "none": None,
    }


def test_a_bundle_names_no_paths_hosts_or_keys(tmp_path):
    private = "hunter2"
    hardware = {"cpu": "abacus", "cores": 2, "memory_bytes": 1, "gpus": [], "host": private}
    store_run(
        tmp_path / "r",
        "a1",
        sets=FEW,
        backbone=f"/home/{private}/vit",
        config={"captions": f"/home/{private}/c.csv", "password": private},
        details={"from": f"s3://{private}:{private}@bucket/x"},
        leakage=f"id-test has 3 images of /home/{private}/train",
        provenance=Provenance("0.1.0", None, None, HERE.versions, hardware),
    )
    export(tmp_path / "r", ["a1"], tmp_path / "a.zip")
    take(tmp_path / "a.zip", tmp_path / "b")
    row = store.read(tmp_path / "b").to_pylist()[0]
    assert private not in str(row)
    assert row["backbone"] == "…/vit"
    assert json.loads(row["hardware"]).keys() == {"cpu", "cores", "memory_bytes", "gpus"}
    for content in members(tmp_path / "a.zip").values():
        assert private.encode() not in content
    assert private.encode() not in (tmp_path / "a.zip").read_bytes()
    assert take(tmp_path / "a.zip", tmp_path / "r").known == ("a1",)


def test_cleaning_twice_is_cleaning_once(results):
    table = store.read(results)
    assert public(public(table)).equals(public(table))
    assert public(table).schema.equals(table.schema, check_metadata=True)


# Tampering

NO_MORE = [HealthCheck.function_scoped_fixture]


@settings(max_examples=100, suppress_health_check=NO_MORE)
@given(data=st.data())
def test_any_changed_byte_of_any_member_is_refused(archive, tmp_path, data):
    content = members(archive)
    name = data.draw(st.sampled_from(sorted(content)))
    position = data.draw(st.integers(0, len(content[name]) - 1))
    flips = data.draw(st.integers(1, 255))
    altered = bytearray(content[name])
    altered[position] ^= flips
    file = packed(tmp_path / "a.zip", content | {name: bytes(altered)})
    is_refused(file, tmp_path / "elsewhere")


@settings(max_examples=100, suppress_health_check=NO_MORE)
@given(data=st.data())
def test_a_changed_byte_of_the_archive_is_refused_or_changes_nothing(archive, tmp_path, data):
    altered = bytearray(archive.read_bytes())
    position = data.draw(st.integers(0, len(altered) - 1))
    altered[position] ^= data.draw(st.integers(1, 255))
    file = tmp_path / "a.zip"
    file.write_bytes(bytes(altered))
    try:
        with opened_archive(file) as opened:
            checked = Contents.of(file, opened)
            content = {name: checked.read(name) for name in checked.members}
    except InputError:
        return
    original = members(archive)
    assert content == {name: original[name] for name in content}
    assert content.keys() == original.keys() - {"manifest.json"}


@settings(max_examples=30, suppress_health_check=NO_MORE)
@given(length=st.integers(0, 10**6))
def test_a_part_of_an_archive_is_refused(archive, tmp_path, length):
    whole = archive.read_bytes()
    file = tmp_path / "a.zip"
    file.write_bytes(whole[: length % len(whole)])
    is_refused(file, tmp_path / "elsewhere")


def test_members_must_be_those_of_the_manifest(archive, tmp_path):
    content = members(archive)
    for name in content:
        rest = {key: value for key, value in content.items() if key != name}
        is_refused(packed(tmp_path / "a.zip", rest), tmp_path / "e", "missing|no manifest.json")
    extra = content | {"rows/dd.parquet": content["rows/a1.parquet"]}
    is_refused(packed(tmp_path / "a.zip", extra), tmp_path / "e", "not in the manifest")
    swapped = content | {
        "predictions/a1.parquet": content["predictions/b2.parquet"],
        "predictions/b2.parquet": content["predictions/a1.parquet"],
    }
    is_refused(packed(tmp_path / "a.zip", swapped), tmp_path / "e")
    with (
        pytest.warns(UserWarning, match="Duplicate"),
        zipfile.ZipFile(packed(tmp_path / "a.zip", content), "a") as opened,
    ):
        opened.writestr("rows/a1.parquet", content["rows/a1.parquet"])
    is_refused(tmp_path / "a.zip", tmp_path / "e", "has rows/a1.parquet 2 times")


@pytest.mark.parametrize(
    "name",
    [
        "../x.parquet",
        "/etc/x",
        "rows/../../x.parquet",
        "rows/.parquet",
        "rows/a/b.parquet",
        "rows/a1.parquet/",
        "rows\\a1.parquet",
        "weights/a1.safetensors",
        "rows/a\n.parquet",
    ],
)
def test_other_names_are_refused(archive, tmp_path, name):
    content = sealed(members(archive) | {name: b"x"})
    is_refused(packed(tmp_path / "a.zip", content), tmp_path / "e")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_the_like_are_refused(archive, tmp_path, kind):
    link = zipfile.ZipInfo("rows/a1.parquet")
    link.external_attr = (kind | 0o777) << 16
    content = members(archive)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr(link, content.pop("rows/a1.parquet"))
        for key, value in content.items():
            zipped.writestr(key, value)
    is_refused(tmp_path / "a.zip", tmp_path / "e", "no plain file")


def test_what_unpacks_to_too_much_is_refused(archive, tmp_path, monkeypatch):
    content = members(archive)
    monkeypatch.setattr(layout, "MOST_BYTES", 10_000)
    big = content | {"rows/a1.parquet": b"\0" * 10_001}
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as opened:
        for key, value in sealed(big).items():
            opened.writestr(key, value)
    assert (tmp_path / "a.zip").stat().st_size < 100_000
    is_refused(tmp_path / "a.zip", tmp_path / "e", "too large")
    monkeypatch.undo()
    monkeypatch.setattr(layout, "MOST_BYTES_IN_ALL", 10_000)
    is_refused(archive, tmp_path / "e", "too large")
    monkeypatch.undo()
    monkeypatch.setattr(layout, "MOST_MEMBERS", 3)
    is_refused(archive, tmp_path / "e", "too large")
    monkeypatch.undo()
    # A small Parquet file may hold very many equal cells.
    many = pq.read_table(io.BytesIO(content["rows/a1.parquet"])).take([0] * 200_000)
    small = parquet(many)
    assert len(small) < 200_000
    file = packed(tmp_path / "b.zip", sealed(content | {"rows/a1.parquet": small}))
    is_refused(file, tmp_path / "e", "too large when it is unpacked")


def test_a_member_that_unpacks_to_gigabytes_is_refused_before_it_is_read(
    archive, tmp_path, monkeypatch
):
    content, name = members(archive), "predictions/a1.parquet"
    told = pq.read_table(io.BytesIO(content[name]))
    position = told.schema.get_field_index("id")
    # One long text in every row: 3 GB from some kilobytes, and one text of 100 MB.
    texts = [pa.array(["x" * 2**20]), pa.array(["x" * 100 * 2**20])]
    for text, times in zip(texts, (3_000, 1), strict=True):
        many = told.take([0] * times)
        ids = pa.DictionaryArray.from_arrays(pa.array([0] * times, pa.int32()), text)
        large = many.set_column(position, told.schema.field("id").with_type(ids.type), ids)
        sink = io.BytesIO()
        pq.write_table(large, sink, compression="zstd", store_schema=False)
        data = sink.getvalue()
        assert len(data) < 2**20
        file = packed(tmp_path / "a.zip", sealed(content | {name: data}))
        is_refused(file, tmp_path / "e", f"{name} is too large when it is unpacked")
    # And an archive's member that is mostly zeros.
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as opened:
        for key, value in sealed(content | {name: b"\0" * 70 * 2**20}).items():
            opened.writestr(key, value)
    is_refused(tmp_path / "b.zip", tmp_path / "e", f"{name} is too large")


def test_a_declared_size_that_is_too_small_is_refused(archive, tmp_path):
    content = members(archive)
    manifest = json.loads(content["manifest.json"])["members"]
    manifest["rows/a1.parquet"]["bytes"] -= 1
    forged = canonical(make_manifest(manifest))
    file = packed(tmp_path / "a.zip", content | {"manifest.json": forged})
    is_refused(file, tmp_path / "e", "bytes, not")


def test_other_versions_and_files_are_refused(archive, tmp_path):
    content = members(archive)
    other = json.loads(content["manifest.json"]) | {"version": 1}
    file = packed(tmp_path / "a.zip", content | {"manifest.json": canonical(other)})
    is_refused(file, tmp_path / "e", "is shiftbench bundle 1 with rows of version")
    older = json.loads(content["manifest.json"])["members"]
    older = content | {"manifest.json": canonical(make_manifest(older, "2"))}
    file = packed(tmp_path / "a.zip", older)
    is_refused(file, tmp_path / "e", "rows of version 2; .* have it exported again")
    old = pq.read_table(io.BytesIO(content["rows/a1.parquet"]))
    old = parquet(old.replace_schema_metadata({VERSION_KEY: b"2"}))
    file = packed(tmp_path / "a.zip", sealed(content | {"rows/a1.parquet": old}))
    is_refused(file, tmp_path / "e", "has not rows of version 3")
    for manifest in (b"[]", b"{}", b"\xff", b'{"members": {"x": 1}}', b"[" * 10**5):
        file = packed(tmp_path / "a.zip", content | {"manifest.json": manifest})
        is_refused(file, tmp_path / "e", "manifest.json cannot be read|with rows of version")
    for data in (b"", b"PK", b"hello", b"\0" * 10_000):
        (tmp_path / "b.zip").write_bytes(data)
        is_refused(tmp_path / "b.zip", tmp_path / "e", "is no")
    with pytest.raises(InputError, match="no such file"):
        take(tmp_path / "absent.zip", tmp_path / "e")


# Forgery: hashes that fit, and contents that do not


FORGED_ROWS = {
    "value": ("value", lambda v: min(1.0, v + 0.01), "value is"),
    "interval": ("low", lambda v: v / 2, "low is"),
    "count": ("n", 41, "n is 41"),
    "another run": ("run_id", "dd", "not of run"),
    "failed": ("status", "failed", "not of run"),
    "selection": ("selection", "best", "no selection 'best'"),
    "role": ("role", "shift", "id-val is no shift"),
    "incomplete": ("complete", False, "complete and incomplete"),
    "no value": ("value", None, "no result"),
    "headline": ("primary", False, "headline"),
    "other seed": ("seed", 7, "different runs"),
    "control characters": ("interval", "a\x1b[2Jb", "control characters"),
    "settings": ("config", "[1]", "JSON"),
}


@pytest.mark.parametrize(("column", "change", "message"), FORGED_ROWS.values(), ids=FORGED_ROWS)
def test_forged_rows_are_refused(archive, tmp_path, column, change, message):
    content = members(archive)
    for name in [name for name in content if "b2" in name]:
        del content[name]
    content["rows/a1.parquet"] = changed(content["rows/a1.parquet"], column, change)
    refreshed = _with_summaries(content)
    is_refused(packed(tmp_path / "a.zip", sealed(refreshed)), tmp_path / "e", message)


FORGED_FACTS = {
    "endless cost": ("train_seconds", float("inf"), "train_seconds is inf"),
    "negative cost": ("search_seconds", -1.0, r"search_seconds is -1\.0"),
    "path": ("search_id", "../../private", "its search has no id"),
    "label twice": ("also_called", ["mine", "mine"], "one of them twice"),
    "escape in a list": ("also_called", ["a\x1b[2J"], "control characters"),
    "escape in an object": ("details", '{"imported": "\\u001b[2J"}', "control characters"),
    "budget": ("budget", '{"evaluation_images": "9"}', "budget of images"),
}


@pytest.mark.parametrize(("column", "value", "message"), FORGED_FACTS.values(), ids=FORGED_FACTS)
def test_forged_facts_of_a_run_are_refused(archive, tmp_path, column, value, message):
    content = members(archive)
    for name in [name for name in content if "b2" in name]:
        del content[name]
    table = pq.read_table(io.BytesIO(content["rows/a1.parquet"]))
    position = table.schema.get_field_index(column)
    field = table.schema.field(position)
    forged = table.set_column(position, field, pa.array([value] * len(table), field.type))
    refreshed = _with_summaries(content | {"rows/a1.parquet": parquet(forged)})
    is_refused(packed(tmp_path / "a.zip", sealed(refreshed)), tmp_path / "e", message)


def test_labels_that_would_multiply_the_rows_are_refused(results, monkeypatch):
    table = store.read(results, ["a1"])
    position = table.schema.get_field_index("also_called")
    field = table.schema.field(position)
    called = table.set_column(position, field, pa.array([["m", "n"]] * len(table), field.type))
    assert row_checks.fault_of_rows(called, "a1") is None
    monkeypatch.setattr(row_checks, "MOST_ROWS", 2 * len(table))
    assert "too many other labels" in (row_checks.fault_of_rows(called, "a1") or "")


def _with_summaries(content: dict[str, bytes]) -> dict[str, bytes]:
    try:
        table = pq.read_table(io.BytesIO(content["rows/a1.parquet"]))
        return content | {"runs.json": summary({"a1": table})}
    except ValueError:
        return content


def test_rows_and_summaries_must_agree(archive, tmp_path):
    content = members(archive)
    text = content["runs.json"].replace(b"wise-ft", b"best-ft")
    file = packed(tmp_path / "a.zip", sealed(content | {"runs.json": text}))
    is_refused(file, tmp_path / "e", r"runs\.json does not say what the rows say")


def test_forged_predictions_are_refused(archive, tmp_path):
    content = members(archive)
    name = "predictions/a1.parquet"
    table = pq.read_table(io.BytesIO(content[name]))
    labels, answers = table["label"].to_pylist(), table["prediction"].to_pylist()
    wrong = next(i for i in range(len(labels)) if labels[i] != answers[i])

    def refused(data: bytes, message: str) -> None:
        file = packed(tmp_path / "a.zip", sealed(content | {name: data}))
        is_refused(file, tmp_path / "e", message)

    refused(changed(content[name], "prediction", labels[wrong], wrong), "value is")
    refused(changed(content[name], "prediction", -1, wrong), "a class is negative")
    refused(changed(content[name], "id", table["id"][1].as_py()), "there twice")
    refused(changed(content[name], "id", "/home/ann/x.png"), "absolute paths")
    refused(parquet(table.slice(0, 80)), "not the variants and sets of the rows")
    refused(parquet(table.drop_columns(["label"])), "not the columns of predictions")
    refused(parquet(table.drop_columns(["region"])), 'needs a column "region"')
    refused(b"PAR1", "cannot be read")
    name = "predictions/b2.parquet"
    refused(changed(content[name], "label", lambda k: (k + 1) % 4), "other examples or labels")


def test_labels_must_be_those_of_runs_that_are_there(archive, tmp_path):
    """A forger who changes labels and values alike is found out where the set is known."""
    forged = tmp_path / "forged"
    store_run(forged, "dd", sets=FEW, label="too good")
    file = RunFolder.of(forged, "dd").predictions
    table = predictions.read(file)
    position = table.schema.get_field_index("label")
    labels = table.set_column(position, table.schema.field(position), table["prediction"])
    predictions.write(file, labels)
    score_again(forged, "dd")
    assert set(store.read(forged)["value"].to_pylist()) == {1.0}
    export(forged, ["dd"], tmp_path / "forged.zip")
    take(tmp_path / "forged.zip", tmp_path / "nobody")  # nothing there to compare with
    take(archive, tmp_path / "somebody")
    is_refused(
        tmp_path / "forged.zip",
        tmp_path / "somebody",
        "id-val has not the labels that run a1 in .* has of it",
    )
    content, other = members(archive), members(tmp_path / "forged.zip")
    both = content | {name: data for name, data in other.items() if "/dd" in name}
    tables = {
        run_id: pq.read_table(io.BytesIO(both[f"rows/{run_id}.parquet"]))
        for run_id in ("a1", "b2", "dd")
    }
    file = packed(tmp_path / "both.zip", sealed(both | {"runs.json": summary(tables)}))
    is_refused(file, tmp_path / "e", "id-val has not the labels that run a1 of the bundle has")


def test_easy_examples_alone_are_refused(archive, tmp_path):
    """The same set with fewer examples, which no budget explains."""
    easy = tmp_path / "easy"
    store_run(easy, "dd", sets=FEW)
    file = RunFolder.of(easy, "dd").predictions
    table = predictions.read(file)
    predictions.write(file, table.filter(pc.equal(table["label"], table["prediction"])))
    score_again(easy, "dd")
    export(easy, ["dd"], tmp_path / "easy.zip")
    take(archive, tmp_path / "somebody")
    is_refused(tmp_path / "easy.zip", tmp_path / "somebody", "id-test has not the examples that")


def score_again(results: Path, run_id: str) -> None:
    """Make the rows follow from the predictions."""
    rows = store.read(results, [run_id]).to_pylist()
    table = predictions.read(RunFolder.of(results, run_id).predictions)
    for row in rows:
        chosen = [
            (a, b) == (row["variant"], row["evaluation_set"])
            for a, b in zip(table["variant"].to_pylist(), table["set"].to_pylist(), strict=True)
        ]
        row |= vars(rescore(table.filter(pa.array(chosen)), row["metric"]))
    schema = store.read(results).schema
    store.write_run(results, run_id, pa.Table.from_pylist(rows, schema=schema))


def test_labels_are_said_to_be_unchecked_unless_something_is_held_against_them(
    results, archive, tmp_path
):
    taken = take(archive, tmp_path / "nobody")
    assert taken.unchecked["a1"] == ["id-val", "id-test", "fmow"]
    marks = store.read(tmp_path / "nobody")["unchecked"].to_pylist()
    assert set(marks) == {"labels not checked"}

    store_run(tmp_path / "somebody", "dd", sets=FEW)  # computed here
    taken = take(archive, tmp_path / "somebody")
    assert taken.unchecked == {"a1": [], "b2": []}
    assert set(store.read(tmp_path / "somebody")["unchecked"].to_pylist()) == {None}

    export(results, ["a1"], tmp_path / "one.zip")
    take(tmp_path / "one.zip", tmp_path / "again")
    assert take(archive, tmp_path / "again").unchecked["b2"]  # what was unchecked checks nothing


# What is there already


def again(into: Path, run_id: str = "b2", **changes: Any) -> Path:
    """The run of a bundle, done again elsewhere: at another time, by default with equal values."""
    later = {"started": LATER, "finished": LATER, "train_seconds": 1.5, "hardware": {"cpu": "new"}}
    settings = {"parents": [("full", "a1")], "label": "wise-ft"} | later | changes
    store_run(into, run_id, ("0", "1"), sets=FEW, **settings)
    return into


def other_values(into: Path, run_id: str = "b2") -> Path:
    """The run of a bundle, done again with other predictions and the values that follow."""
    again(into, run_id)
    file = RunFolder.of(into, run_id).predictions
    table = predictions.read(file)
    position = table.schema.get_field_index("prediction")
    answers = table["label"].to_pylist()
    field = table.schema.field(position)
    predictions.write(file, table.set_column(position, field, pa.array(answers, field.type)))
    score_again(into, run_id)
    return into


def test_the_same_run_of_another_time_and_machine_agrees(archive, tmp_path):
    """Also where another suite calls it differently."""
    elsewhere = again(tmp_path / "elsewhere", label="robust", suite="theirs")
    before = snapshot(elsewhere)
    taken = take(archive, elsewhere)
    assert (taken.new, taken.known, taken.conflicts) == (("a1",), ("b2",), ())
    assert before.items() <= snapshot(elsewhere).items()


def test_two_bundles_with_equal_values_and_other_times_agree(archive, tmp_path):
    export(again(tmp_path / "later"), ["b2"], tmp_path / "later.zip")
    assert take(tmp_path / "later.zip", tmp_path / "e").new == ("b2",)
    taken = take(archive, tmp_path / "e")
    assert (taken.new, taken.known, taken.conflicts) == (("a1",), ("b2",), ())


def test_other_values_of_the_same_run_are_kept_shown_and_decided_by_the_user(archive, tmp_path):
    elsewhere = other_values(tmp_path / "elsewhere")
    before = store.read(elsewhere, ["b2"])
    taken = take(archive, elsewhere)
    assert taken.new == ("a1",)
    (conflict,) = taken.conflicts
    assert conflict.run_id == "b2"
    assert re.match(r"0 on id-val, accuracy: value is 1.0 here and 0\.", conflict.differences[0])
    assert store.read(elsewhere, ["b2"]).equals(before)  # though the bundle's is older
    kept = pq.read_table(conflict.kept / "rows.parquet")
    assert kept["value"].to_pylist() != before["value"].to_pylist()
    assert (conflict.kept / "run" / "predictions.parquet").exists()
    assert len(take(archive, elsewhere).conflicts) == 1  # still, and kept once

    stays = take(archive, elsewhere, ours=["b2"])
    assert (stays.known, stays.conflicts) == (("a1", "b2"), ())
    assert store.read(elsewhere, ["b2"]).equals(before)

    replaced = take(archive, elsewhere, theirs=["b2"])
    assert (replaced.new, replaced.conflicts) == (("b2",), ())
    assert without_marks(store.read(elsewhere, ["b2"])).equals(without_marks(kept))
    assert verify_run(elsewhere, "b2").problems == ()
    (aside,) = [path for path in conflict.kept.parent.iterdir() if path != conflict.kept]
    assert pq.read_table(aside / "rows.parquet")["value"].equals(before["value"])
    assert (aside / "run" / "predictions.parquet").exists()


def test_only_runs_that_disagree_are_decided(archive, tmp_path):
    elsewhere = other_values(tmp_path / "elsewhere")
    for option in ("theirs", "ours"):
        with pytest.raises(InputError, match=f"--{option} a1: no run that disagrees; those are b2"):
            take(archive, elsewhere, **{option: ["a1"]})


def test_another_setting_under_the_same_id_is_a_conflict(archive, tmp_path):
    elsewhere = again(tmp_path / "elsewhere", shots=4)
    (conflict,) = take(archive, elsewhere).conflicts
    assert conflict.differences == ("shots is 4 here and None there",)


def test_a_failed_run_is_not_replaced_silently(archive, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    store.write_run(elsewhere, "a1", failed(info("a1"), "no memory"))
    (conflict,) = take(archive, elsewhere).conflicts
    assert conflict.differences == ("it has failed here (no memory)",)
    assert store.statuses(elsewhere) == {"a1": "failed", "b2": "done"}
    assert take(archive, elsewhere, theirs=["a1"]).new == ("a1",)
    assert store.statuses(elsewhere) == {"a1": "done", "b2": "done"}


def test_predictions_of_a_run_under_way_are_not_replaced(archive, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    kept = RunFolder.of(elsewhere, "b2").predictions
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"b2/predictions\.parquet is there already"):
        take(archive, elsewhere)
    assert kept.read_bytes() == b"mine"
    assert snapshot(elsewhere) == {kept: b"mine"}


def test_a_failure_on_the_way_takes_everything_back(archive, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    rename, moved = Path.rename, []

    def failing(self, target):
        if len(moved) == 3:
            raise OSError(28, "No space left on device")
        moved.append(target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(InputError, match="No space left on device"):
        take(archive, elsewhere)
    assert len(moved) == 3
    assert snapshot(elsewhere) == {}
    monkeypatch.undo()
    assert take(archive, elsewhere).new == ("a1", "b2")


def test_a_run_that_is_there_stays_and_the_others_come(results, archive, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    export(results, ["a1"], tmp_path / "one.zip")
    take(tmp_path / "one.zip", elsewhere)
    before = snapshot(elsewhere)
    taken = take(archive, elsewhere)
    assert (taken.new, taken.known) == (("b2",), ("a1",))
    assert before.items() <= snapshot(elsewhere).items()


def test_the_toy_sets_differ():
    assert image_set("id-test").labels.tolist() != image_set("fmow").labels.tolist()
