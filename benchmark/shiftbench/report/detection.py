"""OOD detection: AUROC and FPR95 of ranked methods against sets of none of their classes."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

AUROC, FPR95 = "auroc", "fpr95"
HEADINGS: Mapping[str, str] = {
    f"{of}:{name}": f"{heading} {shown}"
    for name, shown in (("msp", "MSP"), ("energy", "energy"), ("mcm", "MCM"))
    for of, heading in ((AUROC, "AUROC"), (FPR95, "FPR95"))
}
"""Names of the numbers, and their headings."""
NOTE = (
    "The task's ID test images told from images of none of its classes, in percent. AUROC: how "
    "often one of the former has the higher score (50: not told apart); FPR95: how many of the "
    "latter are accepted where 95 % of the former are (less is better). Scores: the highest "
    "probability (MSP, arXiv 1610.02136), log Σ exp of the logits (energy, arXiv 2010.03759), and "
    "the highest probability of logits divided by CLIP's temperature (MCM, arXiv 2211.13445)."
)


def detected(inside: pa.Table | None, outside: pa.Table | None) -> dict[str, float]:
    """The numbers of one variant's predictions on ID test and on a set of others; those known."""
    from shiftbench.evaluation.detection import DETECTION_SCORES, auroc, fpr95, scores
    from shiftbench.evaluation.predictions import examples_of

    found: dict[str, float] = {}
    if inside is None or outside is None:
        return found
    both = examples_of(inside), examples_of(outside)
    for name in DETECTION_SCORES:
        own, others = (scores(examples, name) for examples in both)
        if own is not None and others is not None:
            found[f"{AUROC}:{name}"] = auroc(own, others)
            found[f"{FPR95}:{name}"] = fpr95(own, others)
    return found
