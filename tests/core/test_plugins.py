from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from shiftbench.cli import main
from shiftbench.core.errors import InputError
from shiftbench.core.plugins import VARIABLE
from shiftbench.core.source_digest import source_digest
from shiftbench.data.sources.registry import SOURCES
from shiftbench.data.tasks.registry import TASKS, builtin_tasks
from shiftbench.methods.base import Method
from shiftbench.methods.registry import METHODS, plugin_origin
from shiftbench.models.registry import BACKBONES

REGISTRIES = {registry.kind: registry for registry in (METHODS, SOURCES, TASKS, BACKBONES)}

MODULE = '''
from shiftbench.data.tasks.registry import builtin_tasks
from shiftbench.methods.base import DerivedMethod, Method, TrainedMethod
from shiftbench.methods.config import MethodConfig, TrainingConfig


class Smooth(TrainedMethod[TrainingConfig]):
    """Smooths."""

    name = "smooth"
    Config = TrainingConfig

    def loss(self, model, batch):
        return {}


class Half(DerivedMethod[MethodConfig]):
    """Lacks what its kind needs."""

    name = "half"
    Config = MethodConfig


class Kindless(Method[MethodConfig]):
    """Is of no kind."""

    name = "kindless"
    Config = MethodConfig


TASK = builtin_tasks()["cifar10"].model_copy(update={"name": "birds"})


def backbone():
    return "/models/clip"
'''


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, with a module ``mylab`` of plugins."""
    (tmp_path / "mylab.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
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


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_builtin_name_loads(kind):
    builtin = [name for name, entry in REGISTRIES[kind].entries().items() if entry.builtin]
    assert builtin
    for name in builtin:
        REGISTRIES[kind].load(name)


def test_builtin_methods_are_called_as_registered():
    assert all(METHODS.load(name).name == name for name in METHODS.entries())


def test_builtin_tasks_are_all_registered():
    registered = {name for name, entry in TASKS.entries().items() if entry.builtin}
    assert registered >= set(builtin_tasks())
    assert TASKS.load("fmow") is builtin_tasks()["fmow"]


def test_entry_points_of_every_kind_are_found_and_loaded_lazily(site):
    install(
        site,
        "[shiftbench.methods]\nsmooth = mylab:Smooth\n"
        "[shiftbench.tasks]\nbirds = mylab:TASK\n"
        "[shiftbench.backbones]\nlab-clip = mylab:backbone\n",
    )
    entry = METHODS.entry("smooth")
    assert (entry.provider, entry.builtin) == ("mylab-methods 1.2", False)
    assert re.fullmatch(r"mylab-methods 1\.2 \+[0-9a-f]{12}", entry.origin)
    assert "mylab" not in sys.modules
    assert issubclass(METHODS.load("smooth"), Method)
    assert TASKS.load("birds").name == "birds"
    assert BACKBONES.load("lab-clip")() == "/models/clip"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("nowhere:Smooth", "No module named"),
        ("mylab:Rough", "Rough"),
        ("mylab:TASK", "not a subclass"),
        ("mylab:backbone", "not a subclass"),
        ("mylab:Kindless", "not a subclass of any of TrainedMethod, DerivedMethod, Ensemble"),
        ("broken:Smooth", "boom"),
    ],
)
def test_a_broken_plugin_says_why_and_harms_nothing_else(site, target, reason):
    (site / "broken.py").write_text("raise RuntimeError('boom\\nboom')")
    install(site, f"[shiftbench.methods]\nrough = {target}\n")
    with pytest.raises(InputError) as caught:
        METHODS.load("rough")
    message = str(caught.value)
    assert reason in message
    assert "mylab-methods 1.2" in message
    assert "\n" not in message
    assert METHODS.load("full").name == "full"


def test_a_method_that_lacks_what_its_kind_needs_says_what(site):
    install(site, "[shiftbench.methods]\nhalf = mylab:Half\n")
    with pytest.raises(InputError, match="it does not define derive"):
        METHODS.load("half")


def test_a_class_must_be_registered_under_its_own_name(site):
    install(site, "[shiftbench.methods]\nrough = mylab:Smooth\n")
    with pytest.raises(InputError, match='calls itself "smooth"'):
        METHODS.load("rough")


def test_a_task_must_be_a_task(site):
    install(site, "[shiftbench.tasks]\nbirds = mylab:Smooth\n")
    with pytest.raises(InputError, match=r"not a shiftbench\.Task"):
        TASKS.load("birds")


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(
        InputError, match=r'unknown method "zeroshot" \(did you mean "zero-shot"\?\)'
    ):
        METHODS.load("zeroshot")
    with pytest.raises(InputError, match=r"unknown task \"xyz\" \(known: .*cifar10, .*fmow"):
        TASKS.load("xyz")


def test_a_name_that_two_claim_is_usable_by_neither(site):
    install(site, "[shiftbench.methods]\nsmooth = mylab:Smooth\nfull = mylab:Smooth\n")
    install(site, "[shiftbench.methods]\nsmooth = mylab:Smooth\n", "other-methods", "3.0")
    with pytest.raises(InputError, match=r"both mylab-methods 1\.2 and other-methods 3\.0"):
        METHODS.load("smooth")
    with pytest.raises(InputError, match=r"both shiftbench .* and mylab-methods 1\.2"):
        METHODS.load("full")
    assert METHODS.load("lp-ft").name == "lp-ft"


def test_plugins_under_development_need_no_installation(site, monkeypatch):
    monkeypatch.setenv(
        VARIABLE, "smooth=mylab:Smooth, tasks/birds=mylab:TASK,backbones/lab/clip=mylab:backbone"
    )
    assert METHODS.load("smooth").name == "smooth"
    assert TASKS.load("birds").name == "birds"
    assert BACKBONES.load("lab/clip")() == "/models/clip"
    assert "smooth" not in TASKS.entries()


@pytest.mark.parametrize(
    ("named", "fault"),
    [
        ("=nosuch", "is not of the form name=package.module:Object"),
        ("smooth=mylab", "is not of the form"),
        ("smooth=:Smooth", "is not of the form"),
        ("sources/=mylab:Scans", "is not of the form"),
        ("source/scans=mylab:Scans", 'unknown kind "source" (did you mean "sources"?)'),
        ("smooth=mylab:Smooth,x/y=mylab:Y", 'unknown kind "x" (known: '),
    ],
)
def test_a_malformed_variable_is_one_line_for_every_verb(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], named: str, fault: str
) -> None:
    monkeypatch.setenv(VARIABLE, named)
    for words in ("plan quickstart", "status quickstart", "list tasks", "check-plugin full"):
        assert main(words.split()) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {VARIABLE}: ") and error.count("\n") == 1
        assert fault in error
    assert main(["--version"]) == 0


def write_lab(site: Path) -> None:
    """A package of methods, with a helper of its own and one beside it."""
    files = {
        "lab/__init__.py": "",
        "lab/methods.py": "from lab.losses import smooth\nfrom . import losses\nimport torch\n",
        "lab/losses.py": "def smooth():\n    import beside.tools.maths as m\n    return m.one\n",
        "lab/notes/ideas.py": "x = 1\n",
        "beside/__init__.py": "",
        "beside/tools/__init__.py": "",
        "beside/tools/maths.py": "from ..constants import one\n",
        "beside/constants.py": "one = 1\n",
        "beside/unrelated.py": "one = 1\n",
        "other.py": "",
    }
    for name, text in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize(
    ("file", "another"),
    [
        ("lab/methods.py", True),
        ("lab/losses.py", True),
        ("lab/notes/ideas.py", True),
        ("lab/notes/new.py", True),
        ("beside/tools/maths.py", True),
        ("beside/constants.py", True),
        ("beside/__init__.py", True),
        ("beside/unrelated.py", False),
        ("other.py", False),
        ("lab/__pycache__/methods.cpython-311.pyc", False),
        ("lab/README.md", False),
    ],
)
def test_an_edited_plugin_is_another_one(site, monkeypatch, installed, file, another):
    write_lab(site)
    if installed:
        install(site, "[shiftbench.methods]\nsmooth = lab.methods:Smooth\n")
    else:
        monkeypatch.setenv(VARIABLE, "smooth=lab.methods:Smooth")
    before = METHODS.entry("smooth").origin
    assert METHODS.entry("smooth").origin == before
    (site / file).parent.mkdir(exist_ok=True)
    with (site / file).open("a") as stream:
        stream.write("# edited\n")
    assert (METHODS.entry("smooth").origin != before) == another
    assert not {"lab", "beside", "lab.methods", "beside.tools"} & sys.modules.keys()


def test_the_digest_of_a_plugin_does_not_depend_on_where_it_lies(tmp_path, monkeypatch):
    found = set()
    for folder in ("here", "there"):
        write_lab(tmp_path / folder)
        with monkeypatch.context() as context:
            context.syspath_prepend(tmp_path / folder)
            found.add(source_digest("lab.methods"))
    assert len(found) == 1
    assert found != {""}


def test_a_method_that_wraps_a_plugin_is_known_by_its_code(site, monkeypatch):
    monkeypatch.setenv(VARIABLE, "smooth=mylab:Smooth")
    kind = METHODS.load("tuned")

    def origin():
        return plugin_origin(kind(kind.Config(of="smooth")))

    before = origin()
    assert before == METHODS.entry("smooth").origin
    (site / "mylab.py").write_text(MODULE + "# edited")
    assert origin() != before
    assert plugin_origin(kind(kind.Config(of="full"))) is None


@pytest.mark.parametrize("text", ["smooth", "smooth=mylab", "=mylab:Smooth", "smooth=mylab:"])
def test_a_variable_of_another_form_is_refused(text, monkeypatch):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(InputError, match=VARIABLE):
        METHODS.entries()
