"""The five data sets of domain generalisation, in DomainBed's layout: a folder a domain.

Folders are those of ``domainbed/scripts/download.py`` of facebookresearch/DomainBed, numbers of
images those of its paper (arXiv 2007.01434), by domain as later papers count them. TerraIncognita
has 24,788 images in the paper, and fewer once what the script cannot label is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet
from shiftbench.data.sources.base import Documented, Terms
from shiftbench.data.sources.listing import folders, list_images
from shiftbench.data.sources.published import PublishedSource

Name = Literal["pacs", "vlcs", "office-home", "terra-incognita", "domain-net"]


@dataclass(frozen=True)
class Layout:
    """Where a data set is, and what is in it.

    Attributes:
        folder: under the data root.
        counts: images of each domain, by the name of its folder.
        classes: how many.
        terms: where to get it.
        certain: False where the numbers are not from the authors.
    """

    folder: str
    counts: dict[str, int]
    classes: int
    terms: Terms
    certain: bool = True


LAYOUTS: dict[Name, Layout] = {
    "pacs": Layout(
        "PACS",
        {"art_painting": 2_048, "cartoon": 2_344, "photo": 1_670, "sketch": 3_929},
        7,
        Terms("https://www.eecs.qmul.ac.uk/~dl307/project_iccv2017", ""),
    ),
    "vlcs": Layout(
        "VLCS",
        {"Caltech101": 1_415, "LabelMe": 2_656, "SUN09": 3_282, "VOC2007": 3_376},
        5,
        Terms("https://github.com/facebookresearch/DomainBed", ""),
    ),
    "office-home": Layout(
        "office_home",
        {"Art": 2_427, "Clipart": 4_365, "Product": 4_439, "Real World": 4_357},
        65,
        Terms("https://www.hemanthdv.org/officeHomeDataset.html", "non-commercial research"),
    ),
    "terra-incognita": Layout(
        "terra_incognita",
        {"location_100": 4_741, "location_38": 9_736, "location_43": 3_970, "location_46": 5_883},
        10,
        Terms("https://lila.science/datasets/caltech-camera-traps", "CDLA-Permissive"),
        certain=False,
    ),
    "domain-net": Layout(
        "domain_net",
        {
            "clipart": 48_129,
            "infograph": 51_605,
            "painting": 72_266,
            "quickdraw": 172_500,
            "real": 172_947,
            "sketch": 69_128,
        },
        345,
        Terms("https://ai.bu.edu/M3SDA (cleaned, without DomainBed's duplicates)", "research"),
        certain=False,
    ),
}


class Domains(PublishedSource):
    """Some domains of a data set of domain generalisation: ``<domain>/<class>/…``.

    Labels are positions in the sorted class folders of all its domains; the column ``domain``
    tells the images apart.
    """

    kind: Literal["domains"] = "domains"
    dataset: Annotated[Name, Field(description="which data set")]
    domains: Annotated[
        tuple[str, ...], Field(min_length=1, description="which of its domains, by their folders")
    ]

    @model_validator(mode="after")
    def _are_its_domains(self) -> Domains:
        known = LAYOUTS[self.dataset].counts
        unknown = next((name for name in self.domains if name not in known), None)
        if unknown is not None:
            raise ValueError(f'{self.dataset} has no domain "{unknown}"; it has {", ".join(known)}')
        if len(set(self.domains)) < len(self.domains):
            raise ValueError("a domain is named twice")
        return self

    def customary(self) -> tuple[str, ...]:
        """Return DomainBed's folder of the data set."""
        return (LAYOUTS[self.dataset].folder,)

    def read(self, root: str) -> ImageSet:
        """Return the images, domain by domain and class by class."""
        folder, names = self.folder(root), self._classes(root)
        position = {name: label for label, name in enumerate(names)}
        absent = [name for name in self.domains if name not in folders(folder)]
        if absent:
            raise InputError(f"{self.title}: there is no folder {folder}/{absent[0]}")
        parts = [(d, name) for d in self.domains for name in folders(f"{folder}/{d}")]
        listing = list_images(folder, [f"{domain}/{name}" for domain, name in parts])
        labels = np.array([position[name] for _, name in parts], np.int64)
        domains = np.array([domain for domain, _ in parts], np.str_)
        images = listing.image_set(labels[listing.folders])
        return replace(images, metadata={"domain": domains[listing.folders]})

    def documented(self, root: str) -> Documented:
        """Return the numbers of these domains."""
        del root
        layout = LAYOUTS[self.dataset]
        examples = sum(layout.counts[domain] for domain in self.domains)
        return Documented(examples, classes=layout.classes, certain=layout.certain)

    def label_names(self, root: str) -> tuple[str, ...] | None:
        """Return the sorted names of the class folders of all domains that are there."""
        return self._classes(root)

    def terms(self) -> Terms:
        """Return the data set's own."""
        return LAYOUTS[self.dataset].terms

    @property
    def title(self) -> str:
        """The data set with its domains."""
        return f"{self.dataset} ({', '.join(self.domains)})"

    def _classes(self, root: str) -> tuple[str, ...]:
        folder = self.folder(root)
        there = [name for name in folders(folder) if name in LAYOUTS[self.dataset].counts]
        return tuple(sorted({name for d in there for name in folders(f"{folder}/{d}")}))
