"""ImageNet-Vid-Robust and YTBB-Robust: frames of videos, each anchor with its neighbours.

An example is a frame seen from an anchor. The columns ``anchor`` and ``offset`` say from which and
how far, and ``accepted`` lists every label that is right; so ``pm:10`` asks for all frames up to 10
from an anchor (Shankar et al., arXiv 1906.02168). Files, labels and the choice of neighbours are
those of ``imagenet_vid_robust.py`` and ``ytbb_robust.py`` of mlfoundations/wise-ft.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from shiftbench.core import locations
from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet, Labels, Projection
from shiftbench.data.sources.files import FileImages, fingerprint, read_json
from shiftbench.data.sources.published import PublishedSource
from shiftbench.data.sources.tables import integers, listed_set, read_table

OFFSETS = 10
"""Frames on each side of an anchor among which both sets have neighbours."""


@dataclass(frozen=True)
class Frame:
    """A frame seen from an anchor.

    Attributes:
        anchor: path of the anchor.
        path: of the frame itself.
        offset: frames from the anchor to it, 0 for the anchor.
        accepted: the labels of the set that are right.
        video: frames of one video are not independent of each other.
    """

    anchor: str
    path: str
    offset: int
    accepted: frozenset[int]
    video: str


@dataclass(frozen=True)
class Frames:
    """What the files of a set say.

    Attributes:
        folder: of the images.
        frames: all of them, in order.
        classes: names of the set's classes, by label.
        covered: the ImageNet labels that a class covers, by label; without those that cover none.
        digest: of the files.
    """

    folder: str
    frames: Sequence[Frame]
    classes: Mapping[int, str]
    covered: Mapping[int, tuple[int, ...]]
    digest: str


class _Video(PublishedSource):
    """Frames of videos, scored among ImageNet's classes or among the set's own."""

    labels: Annotated[
        Literal["imagenet", "own"],
        Field(
            description="imagenet: a class scores the best of the ImageNet classes that it covers; "
            "own: the set's own classes, for a shift with classes: from-data"
        ),
    ] = "imagenet"

    home = "https://modestyachts.github.io/natural-perturbations-website"

    @abstractmethod
    def frames(self, folder: str) -> Frames:
        """Return what the files in the set's folder say."""

    def read(self, root: str) -> ImageSet:
        """Return every anchor with its neighbours, in the order of their paths and offsets."""
        said = self.frames(self.folder(root))
        kept = sorted(said.covered if self.labels == "imagenet" else said.classes)
        images = _seen_from_anchors(self.title, said, {label: k for k, label in enumerate(kept)})
        if self.labels == "own":
            return images
        projection = Projection(tuple(said.covered[label] for label in kept))
        return replace(images, projection=projection)

    def label_names(self, root: str) -> tuple[str, ...] | None:
        """Return the set's own names, where it is scored among them."""
        if self.labels == "imagenet":
            return None
        return tuple(name for _, name in sorted(self.frames(self.folder(root)).classes.items()))


class ImageNetVidRobust(_Video):
    """ImageNet-Vid-Robust: ``val/<clip>/<frame>``, 1,109 anchors, 30 classes, several may be right.

    Each frame has labels of its own.
    """

    kind: Literal["imagenet-vid-robust"] = "imagenet-vid-robust"

    places = ("imagenet_vid_ytbb_robust/imagenet-vid-robust", "imagenet-vid-robust")

    def frames(self, folder: str) -> Frames:
        """Read ``metadata/{labels,pmsets}.json`` and the maps of classes in ``misc``."""
        files = [f"{folder}/metadata/{name}.json" for name in ("labels", "pmsets")]
        names = ("imagenet_class_index", "imagenet_vid_class_index", "rev_wnid_map")
        files += [f"{folder}/misc/{name}.json" for name in names]
        labels, neighbours, imagenet, classes, covers = map(read_json, files)
        found = []
        try:
            for anchor in sorted(neighbours):
                at = _number(anchor)
                seen = {_number(path) - at: path for path in neighbours[anchor]} | {0: anchor}
                for offset, path in sorted(seen.items()):
                    accepted = frozenset(int(label) for label in labels[path])
                    video = PurePosixPath(anchor).parent.name
                    found.append(Frame(anchor, path, offset, accepted, video))
            label_of = {wnid: int(label) for label, (wnid, _) in imagenet.items()}
            own_of = {wnid: int(label) for label, (wnid, _) in classes.items()}
            covered = {own_of[w]: tuple(label_of[c] for c in covers[w]) for w in covers}
            named = {int(label): str(name) for label, (_, name) in classes.items()}
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(
                f"{self.title}: the files in {folder} do not go together: {error}"
            ) from error
        return Frames(folder, found, named, covered, _digest(files))


class YtbbRobust(_Video):
    """YTBB-Robust: ``ytbb_videos/<video>_<ms>/frame-<i>.jpg``, of 24 classes of which 19 score.

    A neighbour has the labels of its anchor. The class "none" is never an answer; animals and
    things that ImageNet has no class for (cow, giraffe, skateboard, toilet) are never right, as in
    published numbers. ``metadata/`` holds what wise-ft has in ``ytbb-robust_metadata/``.
    """

    kind: Literal["ytbb-robust"] = "ytbb-robust"

    places = ("imagenet_vid_ytbb_robust/ytbb-robust", "ytbb-robust")

    def frames(self, folder: str) -> Frames:
        """Read the annotations of anchors and of pairs, and the maps of classes."""
        base = f"{folder}/ytbb-robust_metadata"
        base = base if locations.kind_of(base) == "folder" else f"{folder}/metadata"
        names = ("anchor_labels", "pmk_labels", "ytbb_class_index", "rev_class_idx_map")
        files = [f"{base}/{name}.json" for name in names]
        anchors, pairs, classes, covers = map(read_json, files)
        table = f"{base}/ytbb_robustness_test_anchors_full.csv"
        try:
            named = {int(label): str(name) for label, name in classes.items()}
            found = list(_ytbb_frames(anchors, pairs, named, _first_labels(table)))
            covered = {int(label): tuple(map(int, of)) for label, of in covers.items() if of}
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise InputError(
                f"{self.title}: the files in {base} do not go together: {error}"
            ) from error
        named = {label: name for label, name in named.items() if name != NO_ANSWER}
        digest = _digest([*files, table])
        return Frames(f"{folder}/ytbb_videos", found, named, covered, digest)


NO_ANSWER = "none"
"""The class of YTBB that no model may answer with."""
_SWAPPED = {22: 23, 23: 22}
"""Labels of the table of anchors that the classes number the other way round."""
_UNLIKE = frozenset(
    (
        *("dissimilar", "problematic", "incorrect", "dont know", "deformation"),
        *("background-change", "occlusion-increased", "blur-increase", "bad-anchor"),
    )
)
"""Marks of a pair whose second frame does not show what the anchor does."""


def _ytbb_frames(
    anchors: Mapping[str, Any],
    pairs: Mapping[str, Any],
    classes: Mapping[int, str],
    first: Mapping[str, int],
) -> list[Frame]:
    """Return the reviewed anchors with the neighbours that are like them.

    Args:
        anchors, pairs: annotations, each of a frame or of two: its key and its marks.
        classes: names by label.
        first: the label that an anchor had before it was reviewed, by its folder.
    """
    label_of = {name: label for label, name in classes.items()}
    marks_of = {_key(key): marks for key, marks in _annotations(anchors)}
    of_pairs = []
    for key, marks in _annotations(pairs):
        one, two = map(_key, key.split(","))
        of_pairs.append((one, two, marks))
    bad = {anchor for anchor, _, marks in of_pairs if "bad-anchor" in marks}
    like = {
        (one, two) for one, two, marks in of_pairs if "similar" in marks and not marks & _UNLIKE
    }
    found = []
    for anchor in sorted(marks_of.keys() - bad):
        marks = marks_of[anchor]
        if "good" not in marks or marks & {"bad", "unsure"}:
            continue
        folder, at = PurePosixPath(anchor).parent.name, _number(anchor)
        known = {label_of[mark] for mark in marks if mark in label_of} | {first[folder]}
        for offset in range(-OFFSETS, OFFSETS + 1):
            path = f"{folder}/frame-{at + offset}.jpg"
            if not offset or (anchor, path) in like:
                video = folder.rpartition("_")[0]
                found.append(Frame(anchor, path, offset, frozenset(known), video))
    return found


def _annotations(file: Mapping[str, Any]) -> list[tuple[str, frozenset[str]]]:
    """Return key and marks of each annotation, the last of a key in its place."""
    names = file["labels"]
    marked = {str(row["key"]): row["labels"] for row in file["annotations"]}
    return [(key, frozenset(str(names[k]) for k in marks)) for key, marks in marked.items()]


def _first_labels(table: str) -> dict[str, int]:
    columns = read_table(table, ["ytid", "time_ms", "label"])
    labels = integers(table, "label", columns["label"]).tolist()
    names = zip(columns["ytid"], columns["time_ms"], labels, strict=True)
    return {f"{video}_{ms}": _SWAPPED.get(label, label) for video, ms, label in names}


def _key(path: str) -> str:
    """Return the folder and the name of a frame."""
    return "/".join(PurePosixPath(path).parts[-2:])


def _number(path: str) -> int:
    """Return the number of a frame: of ``000051.JPEG``, or ``frame-51.jpg``."""
    return int(PurePosixPath(path).stem.rpartition("-")[2])


def _digest(files: Sequence[str]) -> str:
    return fingerprint(*map(locations.file_digest, files))


def _seen_from_anchors(title: str, said: Frames, position: Mapping[int, int]) -> ImageSet:
    """Return a set of frames, whose files may be seen from several anchors; an id names both.

    Args:
        title: of the set, for messages.
        said: what its files say.
        position: in the classes that compete, by label; others are never right.
    """
    paths = np.array([frame.path for frame in said.frames], np.str_)
    distinct = np.unique(paths)
    none = np.zeros(len(distinct), np.int64)
    files = listed_set(title, said.folder, distinct, none, {}, said.digest)
    there = np.flatnonzero(np.isin(paths, files.ids))
    frames = [said.frames[k] for k in there.tolist()]
    accepted = [sorted(position[a] for a in f.accepted if a in position) for f in frames]
    labels: Labels = np.array([known[0] if known else 0 for known in accepted], np.int64)
    metadata: dict[str, npt.NDArray[np.generic]] = {
        "anchor": np.array([frame.anchor for frame in frames], np.str_),
        "offset": np.array([frame.offset for frame in frames], np.int64),
        "accepted": np.array([" ".join(map(str, known)) for known in accepted], np.str_),
        "location": np.array([frame.video for frame in frames], np.str_),
    }
    return ImageSet(
        ids=np.array([f"{frame.anchor} {frame.offset:+d}" for frame in frames], np.str_),
        labels=labels,
        images=FileImages(said.folder, paths[there]),
        fingerprint=files.fingerprint,
        metadata=metadata,
        faults=files.faults,
    )
