"""ImageNet with frames of videos as shifts: ImageNet-Vid-Robust and YTBB-Robust.

Headline is pm-10, all frames within 10 of an anchor; pm-0, the anchors alone, is beside it: that is
what WiSE-FT's Table 6 has (arXiv 2109.01903), for zero-shot among the sets' own names (``labels:
own`` and ``classes: from-data``).
"""

from __future__ import annotations

from shiftbench.data.sources.builtin.imagenet import ImageNet
from shiftbench.data.sources.builtin.video import ImageNetVidRobust, YtbbRobust
from shiftbench.data.tasks.definition import EvaluationSet, Holdout, Task

TITLE = "Frames of videos"

TASKS: dict[str, Task] = {
    "imagenet-video": Task(
        name="imagenet-video",
        classes="imagenet",
        templates="openai-80",
        train=ImageNet(split="train"),
        id_val=Holdout(holdout=0.02),
        id_test=EvaluationSet(source=ImageNet(split="val")),
        shifts={
            "imagenet-vid-robust": EvaluationSet(source=ImageNetVidRobust(), metric="pm:10"),
            "ytbb-robust": EvaluationSet(source=YtbbRobust(), metric="pm:10"),
        },
        also_metrics=("pm:0",),
    )
}
