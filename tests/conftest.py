from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Two processes run tests side by side and start others: with a thread each they share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says more about the machine than about the code.
settings.register_profile("noisy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("noisy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow files first, so that no core is idle at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def forgotten_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Plugins that a test imported from a folder of tests are found anew by the next one."""
    before = {*sys.modules}
    yield
    folders = str(tmp_path_factory.getbasetemp()), str(Path(__file__).parent / "fixtures")
    for name in {*sys.modules} - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(folders):
            del sys.modules[name]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the tests' own: nothing is read from or left in the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHIFTBENCH_CACHE", str(folder))
        # Ray lets a local cluster be used by whoever has the user's token, and writes one.
        patch.setenv("RAY_AUTH_MODE", os.environ.get("RAY_AUTH_MODE", "disabled"))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def hub_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the Hugging Face Hub, where CLIP's weights seem to be: an empty file each.

    So planning what needs them asks nobody, with a network and without.
    """
    folder = tmp_path_factory.mktemp("hub")
    for patches in ("16", "32"):
        repository = folder / f"models--timm--vit_base_patch{patches}_clip_224.openai"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text("0" * 40)
        (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
        (repository / "snapshots" / ("0" * 40) / "open_clip_model.safetensors").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_CACHE", str(folder))
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def world(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature world, drawn once for all processes that run tests; each has a copy."""
    from shiftbench.core.locks import locked
    from shiftbench.data.roots import resolve

    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    with locked(base / "world.lock"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHIFTBENCH_CACHE", str(base / "world"))
        drawn = Path(resolve("miniature"))
    shutil.copytree(drawn, cache / drawn.name, dirs_exist_ok=True)
    return Path(resolve("miniature"))
