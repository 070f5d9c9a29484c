from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from shiftbench.core.document import assignment, dotted, dumped, merge, read
from shiftbench.core.errors import InputError

NAMED = frozenset({"methods"})


@pytest.fixture
def parse(tmp_path):
    """Reads a text as the file ``x.yaml``."""

    def parse(text):
        file = tmp_path / "x.yaml"
        file.write_text(text)
        return read(file, "x.yaml")

    return parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("3E4", 3e4),
        ("1.", 1.0),
        (".5", 0.5),
        ("-1.5e+3", -1500.0),
        (".inf", math.inf),
        ("7", 7),
        ("-7", -7),
        ("0", 0),
        ("010", "010"),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("e5", "e5"),
        (".", "."),
        ("-", "-"),
        ("1e-5x", "1e-5x"),
        ("openai/ViT-B-16", "openai/ViT-B-16"),
        ("'1e-5'", "1e-5"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(parse, text, value):
    if text == "-":
        text = "'-'"
    found = parse(f"key: {text}").plain["key"]
    assert found == value
    assert type(found) is type(value)
    assert assignment(f"key={text}").plain == {"key": value}


def test_not_a_number_is_read_as_such(parse):
    assert math.isnan(parse("key: .nan").plain["key"])


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abc", min_size=1), plain))
@example({"a": "0E0", "b": ["1e-5", "no", "~", "", "<<"]})
def test_what_yaml_writes_is_read_back(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("yaml") / "x.yaml"
    file.write_text(dumped(data), encoding="utf-8")
    assert read(file).plain == data


def test_every_part_knows_its_line(parse):
    node = parse("a: 1\nb:\n  c:\n    - 2\n    - d: 3\n")
    assert [str(node.nearest(path).place) for path in [("a",), ("b", "c"), ("b", "c", 1, "d")]] == [
        "x.yaml:1",
        "x.yaml:3",
        "x.yaml:5",
    ]
    assert str(node.error("wrong", ("b", "c", 0))) == "x.yaml:4: b.c[0]: wrong"
    assert str(node.error("wrong", ("b", "z"))) == "x.yaml:2: b.z: wrong"


def test_merge_keys_and_anchors_work(parse):
    node = parse("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}\n")
    assert node.plain == {"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 'x.yaml:3: the key "a" stands there twice, first on line 1'),
        ("a:\n  b: 1\n  b: 2\n", 'x.yaml:3: the key "a.b" stands there twice, first on line 2'),
        ("a: [1\nb: 2\n", "x.yaml:2: not valid YAML"),
        ("a: b: c\n", "x.yaml:1: not valid YAML"),
        ("a: &x [*x]\n", "an alias must not contain itself"),
        ("a: !!python/object/apply:os.system [ls]\n", "x.yaml:1: a"),
        ("a: !!python/name:os.system x\n", "x.yaml:1: not valid YAML"),
        ("a: !!timestamp 2020-01-01\n", "x.yaml:1: a: "),
        ("? [a]\n: 1\n", "x.yaml:1: a key must be a plain word"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2: not valid YAML"),
        ("- a\n", "x.yaml:1: a suite is a mapping"),
        ("", "x.yaml:1: a suite is a mapping"),
        ("a: \x07\n", "x.yaml:1: not valid YAML"),
        (f"a: {{b: [{2**63}]}}\n", f"x.yaml:1: a.b[0]: must fit into 64 bits, got {2**63}"),
        ("a: {b: [s3://k:s@b/c]}\n", "x.yaml:1: a.b[0]: s3://…@b/c: a URL is shown and recorded"),
    ],
)
def test_bad_yaml_is_one_line_that_names_the_place(parse, text, message):
    with pytest.raises(InputError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "where"), [(f"a={2**63}", ""), (f"a.b=[{2**63}]", "[0]: ")])
def test_an_integer_that_no_column_holds_is_refused(text, where):
    with pytest.raises(InputError) as raised:
        assignment(text)
    assert str(raised.value) == f"--set {text}: {where}must fit into 64 bits, got {2**63}"
    assert assignment(f"a={2**63 - 1}").plain == {"a": 2**63 - 1}


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"x\.yaml: cannot be read"):
        read(tmp_path / "x.yaml")


def test_mappings_merge_and_the_rest_is_replaced(parse):
    base = parse("a: {p: 1, q: [1, 2], r: 5}\nb: 1\n")
    merged = merge(base, parse("a: {q: [3], r: null, s: 4}\nc: 2\n"))
    assert merged.plain == {"a": {"p": 1, "q": [3], "r": None, "s": 4}, "b": 1, "c": 2}


def test_merging_keeps_the_places(tmp_path):
    (tmp_path / "base.yaml").write_text("a: {p: 1}\n")
    (tmp_path / "over.yaml").write_text("\na:\n  q: 2\n")
    merged = merge(read(tmp_path / "base.yaml", "base"), read(tmp_path / "over.yaml", "over"))
    assert str(merged.nearest(("a", "p")).place) == "base:1"
    assert str(merged.nearest(("a", "q")).place) == "over:3"


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        ("methods: {full: null}", {"probe": {"lr": 2}}),
        (
            "methods: {full: {max_grad_norm: null}}",
            {"full": {"lr": 1, "max_grad_norm": None}, "probe": {"lr": 2}},
        ),
        ("methods: {new: null}", {"full": {"lr": 1}, "probe": {"lr": 2}, "new": None}),
        ("methods: [probe]", {"probe": {"lr": 2}}),
        ("methods: [new, full]", {"new": None, "full": {"lr": 1}}),
    ],
)
def test_named_entries_can_be_removed_and_picked(parse, over, expected):
    merged = merge(parse("methods: {full: {lr: 1}, probe: {lr: 2}}"), parse(over), NAMED)
    assert merged.plain["methods"] == expected
    assert list(merged.plain["methods"]) == list(expected)


def test_settings_can_be_added_to_a_list_of_names(parse):
    merged = merge(parse("methods: [full, probe]"), parse("methods: {full: {lr: 1}}"), NAMED)
    assert merged.plain["methods"] == {"full": {"lr": 1}, "probe": None}


def test_another_kind_replaces_what_the_first_had(parse):
    base = parse("x: {kind: cifar10, split: train}\ny: {kind: cifar10, split: test}\nz: {kind: a}")
    merged = merge(base, parse("x: {kind: parquet, path: p}\ny: {holdout: 0.1}\nz: {limit: 3}"))
    assert merged.plain == {
        "x": {"kind": "parquet", "path": "p"},
        "y": {"holdout": 0.1},
        "z": {"kind": "a", "limit": 3},
    }


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("a=1", {"a": 1}),
        ("a.b.c=[1, x]", {"a": {"b": {"c": [1, "x"]}}}),
        ('shifts."cifar10.1".metric=accuracy', {"shifts": {"cifar10.1": {"metric": "accuracy"}}}),
        ("a={b: 1e-5}", {"a": {"b": 1e-5}}),
        ("a=", {"a": None}),
        ("a=b=c", {"a": "b=c"}),
    ],
)
def test_assignments_are_documents(text, data):
    assert assignment(text).plain == data


@pytest.mark.parametrize("text", ["a", "=1", "a.=1", ".a=1", "a..b=1", 'a."b=1', "a=[1", "a=*x"])
def test_other_assignments_are_refused(text):
    with pytest.raises(InputError, match="--set"):
        assignment(text)


def test_key_paths_are_written_as_set_takes_them():
    path = ("tasks", "cifar10", "shifts", "cifar10.1", "seeds", 2)
    assert dotted(path) == 'tasks.cifar10.shifts."cifar10.1".seeds[2]'


def test_what_a_merge_made_can_be_used_again(parse):
    plain = parse("a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: *b\nd: {<<: *b, x: 4}\n").plain
    assert plain["c"] == plain["b"] == {"x": 1, "y": 3}
    assert plain["d"] == {"x": 4, "y": 3}
