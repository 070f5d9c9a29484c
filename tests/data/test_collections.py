"""The data sets and tasks beside the nine shifts: labels, groups, splits, and their tasks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shiftbench.core.errors import InputError
from shiftbench.data.prompts import prompts, resolve_classes, resolve_templates
from shiftbench.data.sources.builtin.cifar import Cifar10, Cifar10C, Cifar100
from shiftbench.data.sources.builtin.coop import LAYOUTS as COOP
from shiftbench.data.sources.builtin.coop import CoOp
from shiftbench.data.sources.builtin.domains import Domains
from shiftbench.data.sources.builtin.imagenet import ImageNetC, ImageNetFolder
from shiftbench.data.sources.builtin.subpopulations import CelebA, Waterbirds
from shiftbench.data.sources.builtin.transfer import PatchCamelyon, Transfer
from shiftbench.data.sources.builtin.video import ImageNetVidRobust, YtbbRobust
from shiftbench.data.sources.builtin.wilds import Camelyon17
from shiftbench.data.sources.corruptions import STANDARD_CORRUPTIONS
from shiftbench.data.tasks.definition import EvaluationSet, Task
from shiftbench.data.tasks.opening import open_task
from shiftbench.data.tasks.registry import TASKS, builtin_tasks, collections
from shiftbench.data.tasks.summary import summary
from shiftbench.data.verify import check
from shiftbench.evaluation.examples import of_logits
from shiftbench.evaluation.metrics.registry import metric
from shiftbench.suite.task_metrics import check_metrics

from tests.data import collection_layouts, layouts

NAMES = [name for names in collections().values() for name in names]


# All tasks


def test_collections_name_every_task_once() -> None:
    assert sorted(NAMES) == sorted(name for name, e in TASKS.entries().items() if e.builtin)
    assert len(set(NAMES)) == len(NAMES) == 50
    assert next(iter(collections().values())) == tuple(builtin_tasks())


@pytest.mark.parametrize("name", NAMES)
def test_a_task_is_called_as_it_is_registered_and_says_where_its_data_are(name: str) -> None:
    task = TASKS.load(name)
    assert task.name == name
    assert Task.model_validate_json(task.model_dump_json(), strict=True) == task
    check_metrics(task)
    for source in task.sources().values():
        assert source.terms().home.startswith("https://"), source.title
    titles = [source.title for source in task.sources().values()]
    wholes = {s.model_copy(update={"part": (0.0, 1.0), "limit": None, "balanced": False})
              .model_dump_json() for s in task.sources().values()}  # fmt: skip
    assert len(set(titles)) == len(wholes), "a title that stands for two sets"


@pytest.mark.parametrize(
    ("sizes", "total"),
    [
        ([sum(layout.counts) for layout in COOP.values()],
         [8_242, 7_349, 16_185, 8_189, 101_000, 10_000, 39_700, 5_640, 27_000, 13_320]),
        ([Camelyon17(split=s).size("") for s in ("train", "id_val", "val", "test")], 455_954),
        ([Waterbirds(split=s).size("") for s in ("train", "val", "test")], 11_788),
        ([CelebA(split=s).size("") for s in ("train", "val", "test")], 202_599),
        ([PatchCamelyon(split=s).size("") for s in ("train", "val", "test")], 327_680),
        ([Transfer(dataset="stanford-cars", split=s).size("") for s in ("train", "val", "test")],
         16_185),
        ([Domains(dataset="pacs", domains=(d,)).size("")
          for d in ("art_painting", "cartoon", "photo", "sketch")], 9_991),
        ([Domains(dataset="vlcs", domains=("Caltech101", "LabelMe", "SUN09", "VOC2007")).size("")],
         10_729),
    ],
    ids=lambda value: "",
)  # fmt: skip
def test_parts_are_as_large_as_the_data_sets(sizes: list[int], total: int | list[int]) -> None:
    assert sizes == total if isinstance(total, list) else sum(sizes) == total


def test_a_part_of_absent_data_is_a_fraction_of_the_documented_number() -> None:
    half = Camelyon17(split="id_val", part=(0, 0.5))
    assert half.size("/no/such/folder") == 16_780
    assert half.model_copy(update={"limit": 7}).size("/no/such/folder") == 7
    assert TASKS.load("pacs-photo").train.size("/no/such/folder") == round(0.8 * 8_321)


def test_a_summary_has_sizes_metrics_and_terms() -> None:
    told = summary(TASKS.load("camelyon17"))
    assert told.sets == "camelyon17 (train) → camelyon17-ood"
    assert told.images == "302,436 training, 16,780 ID test, 85,054 in shifts"
    assert told.terms == ("https://wilds.stanford.edu/datasets/#camelyon17 (CC0)",)
    assert summary(TASKS.load("celeba")).metrics == "accuracy; of shifts worst-group:hair*sex"
    many = summary(TASKS.load("cifar10-c"))
    assert many.sets.endswith("gaussian_noise-1, gaussian_noise-2, gaussian_noise-3, … (75 in all)")
    assert many.images.endswith("10,000 ID test, 750,000 in shifts")
    video = summary(TASKS.load("imagenet-video"))
    assert video.images == "1,281,167 training, 50,000 ID test"
    assert video.metrics == "accuracy; of shifts pm:10"


# CoOp's


@pytest.fixture(scope="module")
def coop(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("coop")
    collection_layouts.oxford_pets(root)
    collection_layouts.dtd(root)
    collection_layouts.fgvc_aircraft(root)
    layouts.imagenet(root)
    return str(root)


def test_labels_and_names_are_those_of_the_split_file(coop: str) -> None:
    pets = CoOp(dataset="oxford-pets", split="val")
    assert pets.label_names(coop) == collection_layouts.PETS
    images = pets.open(coop)
    assert images.ids.tolist() == [f"{name}/image_3.jpg" for name in collection_layouts.PETS]
    assert images.labels.tolist() == [0, 1, 2]
    aircraft = CoOp(dataset="fgvc-aircraft", split="test").open(coop)
    assert aircraft.ids.tolist() == ["0000006.jpg", "0000007.jpg", "0000008.jpg"]
    assert aircraft.labels.tolist() == [2, 0, 1]


def test_a_task_has_prompts_without_underscores(coop: str) -> None:
    data = open_task(TASKS.load("oxford-pets"), coop, 2, 0)
    assert data.classes == collection_layouts.PETS
    assert data.prompts[0] == ("a photo of a american bulldog, a type of pet.",)
    assert [len(images) for images in (data.train, data.id_val)] == [6, 3]


def test_base_and_new_classes_are_cut_as_in_cocoop(coop: str) -> None:
    task = TASKS.load("dtd").model_copy(update={"class_split": "base-to-new"})
    data = open_task(task, coop, None, 0)
    assert data.classes == ("banded", "dotted", "grid")  # ceil(5 / 2)
    assert data.vocabularies["new"] == (
        ("lined", "woven"),
        (("lined texture.",), ("woven texture.",)),
    )
    assert {name: len(images) for name, (_, images) in data.evaluation.items()} == {
        "id-val": 3,
        "id-test": 6,
        "new": 4,
    }
    assert np.unique(data.evaluation["new"][1].labels).tolist() == [0, 1]


def test_the_cross_dataset_task_scores_every_set_among_its_own_names(coop: str) -> None:
    task = TASKS.load("imagenet-cross-dataset")
    assert list(task.shifts) == list(COOP)
    kept = {name: task.shifts[name] for name in ("oxford-pets", "fgvc-aircraft")}
    task = task.model_copy(update={"shifts": kept, "classes": layouts.WNIDS})
    data = open_task(task, coop, None, 0)
    assert data.vocabularies["oxford-pets"][0] == collection_layouts.PETS
    names, texts = data.vocabularies["fgvc-aircraft"]
    assert names == collection_layouts.VARIANTS
    assert texts[1] == ("a photo of a Cessna 172, a type of aircraft.",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "no list of paths"),
        ('{"train": []}', '"test" is no list'),
        ('{"train": [], "test": [["a.jpg", 0]]}', "not enough values"),
        ('{"train": [["a", 0, "x"], ["b", 2, "y"]], "test": []}', "do not go together"),
        ('{"train": [["a", 0, "x"], ["b", 0, "y"]], "test": []}', "do not go together"),
    ],
)
def test_a_broken_split_file_is_one_line(tmp_path: Path, content: str, said: str) -> None:
    collection_layouts.dtd(tmp_path)
    (tmp_path / "dtd/split_zhou_DescribableTextures.json").write_text(content)
    source = CoOp(dataset="dtd", split="test")
    with pytest.raises(InputError, match=said) as error:
        source.read(str(tmp_path))
        source.label_names(str(tmp_path))
    assert "\n" not in str(error.value)


def test_an_aircraft_without_a_variant_is_refused(tmp_path: Path) -> None:
    collection_layouts.fgvc_aircraft(tmp_path)
    (tmp_path / "fgvc_aircraft/variants.txt").write_text("707-320\nMD-11\n")
    with pytest.raises(InputError, match="Cessna 172"):
        CoOp(dataset="fgvc-aircraft", split="val").read(str(tmp_path))


# Domains


def test_one_domain_is_left_out(tmp_path: Path) -> None:
    collection_layouts.pacs(tmp_path)
    data = open_task(TASKS.load("pacs-photo"), str(tmp_path), None, 0)
    assert data.classes == ("dog", "giraffe")
    sets = {name: images for name, (_, images) in data.evaluation.items()} | {"train": data.train}
    assert {n: sorted(set(i.metadata["domain"].tolist())) for n, i in sets.items()} == {
        "photo": ["photo"],
        "train": ["art_painting", "cartoon", "sketch"],
        "id-val": ["art_painting", "cartoon", "sketch"],
        "id-test": ["art_painting", "cartoon", "sketch"],
    }
    assert set(sets["photo"].labels.tolist()) == {1}  # no dog: still the second class
    seen = [set(sets[name].ids.tolist()) for name in ("train", "id-val", "id-test")]
    assert not seen[0] & seen[1] and not seen[1] & seen[2] and not seen[0] & seen[2]
    # Of 10 + 11 + 13 images a class: up to 80 %, 90 % and all of them, by rounding.
    assert [len(ids) for ids in seen] == [2 * 27, 2 * 4, 2 * 3]


def test_domains_are_those_of_the_data_set(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='no domain "photos"; it has art_painting, cartoon'):
        Domains(dataset="pacs", domains=("photos",))
    with pytest.raises(ValueError, match="named twice"):
        Domains(dataset="pacs", domains=("photo", "photo"))
    collection_layouts.pacs(tmp_path)
    (tmp_path / "PACS/photo").rename(tmp_path / "PACS/photos")
    with pytest.raises(InputError, match="there is no folder"):
        Domains(dataset="pacs", domains=("photo",)).read(str(tmp_path))


# Subpopulations


def test_celebas_own_lists_say_the_same(tmp_path: Path) -> None:
    for ending in ("csv", "txt"):
        (tmp_path / ending).mkdir()
        collection_layouts.celeba(tmp_path / ending, ending)
    one, two = (CelebA(split="test").open(str(tmp_path / ending)) for ending in ("csv", "txt"))
    assert one.ids.tolist() == two.ids.tolist()
    assert one.labels.tolist() == two.labels.tolist()
    assert one.metadata["sex"].tolist() == two.metadata["sex"].tolist()
    (tmp_path / "txt/celeba/list_attr_celeba.txt").write_text("1\nBald Male\n000001.jpg 1 1\n")
    with pytest.raises(InputError, match="not CelebA's list of attributes"):
        CelebA(split="test").open(str(tmp_path / "txt"))


def test_the_worst_group_is_one_of_four(tmp_path: Path) -> None:
    collection_layouts.waterbirds(tmp_path)
    data = open_task(TASKS.load("waterbirds"), str(tmp_path), None, 0)
    item, images = data.evaluation["worst-group"]
    logits = np.eye(2)[images.labels]
    water = (images.metadata["background"] == "water") & (images.labels == 0)
    logits[water] = [0, 1]  # land birds on water are taken for water birds
    examples = of_logits(images.labels, logits, images.metadata)
    assert metric(item.metric).value(examples) == 0
    assert metric("accuracy").value(examples) == 0.75


# Corruptions


def test_corruption_shifts_are_called_by_corruption_and_severity() -> None:
    for name in ("imagenet-c", "cifar10-c", "cifar100-c"):
        shifts = TASKS.load(name).shifts
        assert list(shifts) == [f"{c}-{s}" for c in STANDARD_CORRUPTIONS for s in range(1, 6)]
        source = shifts["gaussian_noise-3"].source
        assert source.title == f"{name} (gaussian_noise, 3)"
        assert source.size("") == (50_000 if name == "imagenet-c" else 10_000)


def test_every_image_says_its_corruption(tmp_path: Path) -> None:
    layouts.imagenet(tmp_path)
    layouts.imagenet_c(tmp_path, ["fog", "snow"])
    layouts.cifar10_c(tmp_path, ["fog", "snow"])
    for kind in (ImageNetC, Cifar10C):
        images = kind(corruptions=("snow", "fog")).open(str(tmp_path))
        assert [id_.split("/")[0] for id_ in images.ids.tolist()] == images.metadata[
            "corruption"
        ].tolist()
        assert set(images.metadata["severity"].tolist()) == {5}


# CIFAR-100 and folders of ImageNet's classes


def test_cifar100_has_its_fine_classes(tmp_path: Path) -> None:
    collection_layouts.cifar100(tmp_path)
    source = Cifar100(split="train")
    assert source.open(str(tmp_path)).labels.tolist() == [*range(20), *range(20)]
    assert source.label_names(str(tmp_path)) == collection_layouts.CIFAR100_NAMES
    assert check(source, str(tmp_path)).detail.startswith("40 images instead of 50,000")
    names = resolve_classes("cifar100")
    assert list(names) == sorted(names)
    assert len(names) == 100
    assert Cifar10(split="train").documented(str(tmp_path)).per_class == 5000


def test_a_folder_of_some_of_imagenets_classes_is_scored_on_them(tmp_path: Path) -> None:
    layouts.imagenet(tmp_path)
    layouts.subset(tmp_path, "stylized")  # the fourth and the second class
    source = ImageNetFolder(path="stylized")
    assert set(source.open(str(tmp_path)).labels.tolist()) == {1, 3}
    task = builtin_tasks()["imagenet"].model_copy(
        update={
            "classes": layouts.WNIDS,
            "ood_val": None,
            "shifts": {"stylized": EvaluationSet(source=source, scored_on="own")},
        }
    )
    _, images = open_task(task, str(tmp_path), None, 0).evaluation["stylized"]
    assert images.projection is not None
    assert images.projection.groups == ((1,), (3,))


# Transfer


def test_classes_of_flyps_folders(tmp_path: Path) -> None:
    collection_layouts.transfer(tmp_path, "flowers102", ["rose", "wild_pansy"])
    data = open_task(TASKS.load("flyp-flowers102"), str(tmp_path), None, 0)
    assert data.prompts[1] == ("a photo of a wild pansy, a type of flower.",)
    assert [len(data.train), len(data.id_val), len(data.evaluation["id-test"][1])] == [6, 4, 2]
    (tmp_path / "flowers102/test/rose").rename(tmp_path / "flowers102/test/tulip")
    with pytest.raises(InputError, match="other class folders than training"):
        Transfer(dataset="flowers102", split="test").read(str(tmp_path))


def test_names_of_caltech101_are_clips(tmp_path: Path) -> None:
    folders = [f"{k:03d}" for k in range(101)]
    collection_layouts.transfer(tmp_path, "caltech-101", folders, each=(1, 1, 1))
    data = open_task(TASKS.load("flyp-caltech101"), str(tmp_path), 1, 0)
    assert data.classes[:3] == ("off-center face", "centered face", "leopard")
    assert data.prompts[5][:2] == ("a photo of a airplane.", "a painting of a airplane.")
    assert len(set(data.prompts[5])) == 34
    assert "the plastic airplane." in data.prompts[5]
    assert len(resolve_templates(TASKS.load("flyp-stanford-cars").templates)) == 8


def test_torchvisions_folders_of_rendered_sst2(tmp_path: Path) -> None:
    collection_layouts.transfer(tmp_path, "rendered-sst2", ["negative", "positive"], val="valid")
    assert len(Transfer(dataset="rendered-sst2", split="val").open(str(tmp_path))) == 4


def test_patches_are_labelled_by_the_hubs_booleans(tmp_path: Path) -> None:
    collection_layouts.patch_camelyon(tmp_path)
    data = open_task(TASKS.load("patch-camelyon"), str(tmp_path), None, 0)
    assert data.train.labels.tolist() == [0, 1, 1, 0]
    assert data.prompts[1] == ("this is a photo of lymph node containing metastatic tumor tissue",)


def test_spaces_in_templates() -> None:
    forms = ["{}", "{:spaces}", "{:article}"]
    assert prompts(forms, "air_hangar") == ["air_hangar", "air hangar", "an air hangar"]


# Videos


@dataclass(frozen=True)
class Videos:
    """The opened shifts of the task of videos, and logits over ImageNet's five classes."""

    root: str
    vid: Any
    ytbb: Any


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Videos:
    root = tmp_path_factory.mktemp("videos")
    layouts.imagenet(root)
    collection_layouts.vid_robust(root)
    collection_layouts.ytbb_robust(root)
    vid, ytbb = (kind().open(str(root)) for kind in (ImageNetVidRobust, YtbbRobust))
    return Videos(str(root), vid, ytbb)


def slow_pmk(
    accepted: dict[str, set[int]], sets: dict[str, list[str]], answers: dict[str, int]
) -> tuple[float, float]:
    """pm-0 and pm-k as wise-ft's ``score_predictions`` defines them.

    Args:
        accepted: right labels of each frame of each anchor, by ``anchor frame``.
        sets: neighbours of each anchor.
        answers: by frame.
    """
    benign = [answers[a] in accepted[f"{a} {a}"] for a in sets]
    worst = [
        right and all(answers[f] in accepted[f"{a} {f}"] for f in sets[a])
        for a, right in zip(sets, benign, strict=True)
    ]
    return sum(benign) / len(sets), sum(worst) / len(sets)


def test_vid_robust_is_scored_as_wise_ft_does(videos: Videos) -> None:
    images = videos.vid
    assert images.projection.groups == ((0, 3), (4,), (1,))
    assert images.metadata["offset"].tolist() == [-2, 0, 5, 0, 1, 0]
    accepted = {
        f"{a} {f}": set(collection_layouts.VID_LABELS[f])
        for a, seen in collection_layouts.VID_ANCHORS.items()
        for f in [a, *seen]
    }
    frames = [str(name) for name in images.images.names]
    for seed in range(20):
        logits = np.random.default_rng(seed).normal(size=(len(frames), 5))
        scored = images.projection(logits)
        examples = of_logits(images.labels, scored, images.metadata)
        answers = dict(zip(frames, scored.argmax(axis=1).tolist(), strict=True))
        expected = slow_pmk(accepted, collection_layouts.VID_ANCHORS, answers)
        assert (metric("pm:0").value(examples), metric("pm").value(examples)) == expected


def test_ytbb_robust_keeps_reviewed_frames_and_its_anchors_labels(videos: Videos) -> None:
    images = videos.ytbb
    assert images.projection.groups == ((2,), (0, 1))  # person and bird
    seen = list(zip(images.ids.tolist(), images.metadata["accepted"].tolist(), strict=True))
    assert seen == [
        ("aa-_a_1000/frame-15.jpg -2", "0 1"),
        ("aa-_a_1000/frame-15.jpg +0", "0 1"),
        ("aa-_a_1000/frame-15.jpg +5", "0 1"),
        ("bb_b_2000/frame-30.jpg +0", "1"),
        ("ee_5000/frame-75.jpg +0", ""),  # a cow, which no class of ImageNet is
    ]
    assert images.metadata["location"].tolist() == ["aa-_a"] * 3 + ["bb_b", "ee"]
    right = of_logits(images.labels, np.tile([0.0, 1.0], (5, 1)), images.metadata)
    assert metric("pm:10").value(right) == 2 / 3


def test_videos_among_their_own_names(videos: Videos) -> None:
    sources = (ImageNetVidRobust(labels="own"), YtbbRobust(labels="own"))
    names = [source.label_names(videos.root) for source in sources]
    assert names == [("airplane", "giant_panda", "zebra"), ("person", "bird", "cow")]
    shifts = {
        source.kind: EvaluationSet(source=source, classes="from-data", metric="pm:10")
        for source in sources
    }
    task = TASKS.load("imagenet-video").model_copy(
        update={"shifts": shifts, "classes": layouts.WNIDS, "templates": "simple"}
    )
    data = open_task(task, videos.root, None, 0)
    assert data.vocabularies["ytbb-robust"][0] == ("person", "bird", "cow")
    accepted = data.evaluation["ytbb-robust"][1].metadata["accepted"]
    assert accepted.tolist() == ["0 1", "0 1", "0 1", "1", "2"]


@pytest.mark.parametrize("file", ["labels", "pmsets"])
def test_files_of_videos_that_do_not_go_together_are_one_line(tmp_path: Path, file: str) -> None:
    collection_layouts.vid_robust(tmp_path)
    base = tmp_path / "imagenet_vid_ytbb_robust/imagenet-vid-robust"
    content = {"labels": {}, "pmsets": {"val/clip_a/first.JPEG": []}}[file]
    (base / f"metadata/{file}.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="do not go together") as error:
        ImageNetVidRobust().read(str(tmp_path))
    assert "\n" not in str(error.value)
