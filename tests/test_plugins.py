from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmark import plugins
from benchmark.data.tasks import BUILTIN_TASKS
from benchmark.errors import InputError
from benchmark.methods.base import Method
from benchmark.plugins import KINDS, VARIABLE

MODULE = '''
from benchmark.data.tasks import BUILTIN_TASKS
from benchmark.methods.base import Method, MethodConfig


class Smooth(Method[MethodConfig]):
    """Smooths."""

    name = "smooth"
    Config = MethodConfig


TASK = BUILTIN_TASKS["cifar10"].model_copy(update={"name": "birds"})


def backbone():
    return "/models/clip"
'''


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, with a module ``mylab`` of plugins."""
    (tmp_path / "mylab.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mylab", raising=False)
    return tmp_path


def install(
    site: Path, entry_points: str, name: str = "mylab-methods", version: str = "1.2"
) -> None:
    """Leave what pip leaves of a distribution."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (folder / "METADATA").write_text(metadata)
    (folder / "entry_points.txt").write_text(entry_points)


@pytest.mark.parametrize("kind", KINDS)
def test_every_builtin_name_loads(kind):
    builtin = [name for name, entry in plugins.entries(kind).items() if entry.builtin]
    assert builtin
    for name in builtin:
        plugins.load(kind, name)


def test_builtin_methods_are_called_as_registered():
    assert all(plugins.method(name).name == name for name in plugins.methods())


def test_builtin_tasks_are_all_registered():
    registered = {name for name, entry in plugins.entries("tasks").items() if entry.builtin}
    assert registered == set(BUILTIN_TASKS)
    assert plugins.task("fmow") is BUILTIN_TASKS["fmow"]


def test_entry_points_of_every_kind_are_found_and_loaded_lazily(site):
    install(
        site,
        "[benchmark.methods]\nsmooth = mylab:Smooth\n"
        "[benchmark.tasks]\nbirds = mylab:TASK\n"
        "[benchmark.backbones]\nlab-clip = mylab:backbone\n",
    )
    entry = plugins.entry("methods", "smooth")
    assert (entry.origin, entry.builtin) == ("mylab-methods 1.2", False)
    assert "mylab" not in sys.modules
    assert issubclass(plugins.method("smooth"), Method)
    assert plugins.task("birds").name == "birds"
    assert plugins.backbone("lab-clip")() == "/models/clip"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("nowhere:Smooth", "No module named"),
        ("mylab:Rough", "Rough"),
        ("mylab:TASK", "not a subclass"),
        ("mylab:backbone", "not a subclass"),
        ("broken:Smooth", "boom"),
    ],
)
def test_a_broken_plugin_says_why_and_harms_nothing_else(site, target, reason):
    (site / "broken.py").write_text("raise RuntimeError('boom\\nboom')")
    install(site, f"[benchmark.methods]\nrough = {target}\n")
    with pytest.raises(InputError) as caught:
        plugins.method("rough")
    message = str(caught.value)
    assert reason in message
    assert "mylab-methods 1.2" in message
    assert "\n" not in message
    assert plugins.method("full").name == "full"


def test_a_class_must_be_registered_under_its_own_name(site):
    install(site, "[benchmark.methods]\nrough = mylab:Smooth\n")
    with pytest.raises(InputError, match='calls itself "smooth"'):
        plugins.method("rough")


def test_a_task_must_be_a_task(site):
    install(site, "[benchmark.tasks]\nbirds = mylab:Smooth\n")
    with pytest.raises(InputError, match=r"not a benchmark\.data\.tasks\.Task"):
        plugins.task("birds")


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(
        InputError, match=r'unknown method "zeroshot" \(did you mean "zero-shot"\?\)'
    ):
        plugins.method("zeroshot")
    with pytest.raises(InputError, match="known: cifar10, fmow, imagenet, iwildcam"):
        plugins.task("xyz")


def test_a_name_that_two_claim_is_usable_by_neither(site):
    install(site, "[benchmark.methods]\nsmooth = mylab:Smooth\nfull = mylab:Smooth\n")
    install(site, "[benchmark.methods]\nsmooth = mylab:Smooth\n", "other-methods", "3.0")
    with pytest.raises(InputError, match=r"both mylab-methods 1\.2 and other-methods 3\.0"):
        plugins.method("smooth")
    with pytest.raises(InputError, match=r"both shiftbench .* and mylab-methods 1\.2"):
        plugins.method("full")
    assert plugins.method("lp-ft").name == "lp-ft"


def test_plugins_under_development_need_no_installation(site, monkeypatch):
    monkeypatch.setenv(
        VARIABLE, "smooth=mylab:Smooth, tasks/birds=mylab:TASK,backbones/lab/clip=mylab:backbone"
    )
    assert plugins.method("smooth").name == "smooth"
    assert plugins.task("birds").name == "birds"
    assert plugins.backbone("lab/clip")() == "/models/clip"
    assert "smooth" not in plugins.entries("tasks")


def test_an_edit_of_a_plugin_under_development_is_another_version(site, monkeypatch):
    monkeypatch.setenv(VARIABLE, "smooth=mylab:Smooth")
    before = plugins.entry("methods", "smooth")
    assert before == plugins.entry("methods", "smooth")
    assert len(before.version) == 12
    (site / "mylab.py").write_text(MODULE + "# edited")
    assert plugins.entry("methods", "smooth").version != before.version


@pytest.mark.parametrize("text", ["smooth", "smooth=mylab", "=mylab:Smooth", "smooth=mylab:"])
def test_a_variable_of_another_form_is_refused(text, monkeypatch):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(InputError, match=VARIABLE):
        plugins.methods()
