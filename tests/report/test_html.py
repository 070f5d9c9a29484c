from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from shiftbench.leaderboard.store import read
from shiftbench.report.html import assets
from shiftbench.report.html.page import as_json, render
from shiftbench.report.model import build

from tests.report.page_records import (
    EVIL,
)


@pytest.fixture(scope="module")
def html(report):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assets, "vega", lambda: "window.vegaEmbed = null;")
        return render(report)


class Elements(HTMLParser):
    """All elements with their attributes, and the text of each table and script."""

    def __init__(self, text):
        super().__init__()
        self.found, self.texts, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))


def test_names_stay_text(html, report):
    elements = Elements(html)
    scripts = [attributes for tag, attributes in elements.found if tag == "script"]
    assert [attributes.get("type") for attributes in scripts] == [
        "application/json", None, "module", "module"
    ]  # fmt: skip
    shown = [text for element, text in elements.texts if element not in ("script", "style")]
    assert shown.count(EVIL) >= 2
    assert any(EVIL in text and "NaN" in text for text in shown)
    embedded = next(text for of, text in elements.texts if of == "script" and '"specs"' in text)
    assert "<" not in embedded
    data = json.loads(embedded)["datasets"]
    assert EVIL in {record["method"] for record in data["r1-points"]}


def test_nothing_is_fetched(html):
    elements = Elements(html)
    links = [
        a.get(k) for _, a in elements.found for k in ("href", "src", "action", "data") if k in a
    ]
    assert links
    assert all(link.startswith("#") for link in links)
    (policy,) = [a["content"] for _, a in elements.found if "http-equiv" in a]
    assert policy.startswith("default-src 'none'")


def test_nothing_is_hidden(html):
    text = " ".join(text for of, text in Elements(html).texts if of not in ("script", "style"))
    assert "29,000 of 30,000 images" in text
    assert "12 test images of laion" in text
    assert "1 failed" in text
    assert "diverged" in text
    assert "There is nothing to compare with." in text
    assert 'no command is known: there is no suite "toy"' in text


def test_tables_are_tables(html):
    elements = Elements(html).found
    tables = sum(tag == "table" for tag, _ in elements)
    assert tables == sum(tag == "caption" for tag, _ in elements) > 5
    assert all("scope" in attributes for tag, attributes in elements if tag == "th")
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = {a["href"][1:] for tag, a in elements if tag == "a"}
    assert wanted <= set(ids)


def test_the_same_rows_give_the_same_page(report, monkeypatch):
    monkeypatch.setattr(assets, "vega", lambda: "window.vegaEmbed = null;")
    small = replace(report, rankings=())
    assert render(small) == render(small)


def test_an_empty_page(tmp_path):
    text = render(build(read(tmp_path), tmp_path))
    assert "No run has finished yet." in text


def test_json_cannot_end_its_script():
    value = {"a": "</script><!--&\u2028", "b": [1.5, None]}
    text = as_json(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value
    with pytest.raises(ValueError, match="JSON"):
        as_json(float("nan"))


def test_exports_become_globals():
    text = assets.as_global("const a=1,b=2;export{a as x,b};", "x")
    assert "export" not in text
    assert text.endswith("globalThis.x = a;\n")
    assert assets.as_global("const b=2;export{b};", "b").endswith("globalThis.b = b;\n")
    with pytest.raises(ValueError, match="does not export y"):
        assets.as_global("export{a as x};", "y")
    with pytest.raises(ValueError, match="one statement"):
        assets.as_global("export default 1;", "x")
