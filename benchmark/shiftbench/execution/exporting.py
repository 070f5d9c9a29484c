"""A run's model as a folder that plain open_clip loads, with classifier and model card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import yaml
from safetensors.torch import save_file

from shiftbench.core.errors import InputError
from shiftbench.execution.finetuned import FineTuned, load
from shiftbench.leaderboard import store
from shiftbench.leaderboard.bundles.public import public
from shiftbench.leaderboard.schema import Row, rows
from shiftbench.models.exported import CLASSES, CLASSIFIER
from shiftbench.models.hub import WEIGHTS
from shiftbench.models.names import CONFIG

if TYPE_CHECKING:
    from shiftbench.data.preprocessing import Preprocessing

UNKNOWN_LICENCE = "other"
"""What the Hub calls a licence that is none of those it knows."""

USAGE = """\
```python
import json, open_clip, torch, safetensors.torch
from PIL import Image

model, preprocess = open_clip.create_model_from_pretrained("{name}")
head = safetensors.torch.load_file("{folder}/{classifier}")
features = model.encode_image(preprocess(Image.open("image.jpg"))[None], normalize=True)
logits = features @ head["weight"].T + head["bias"]
print(json.load(open("{folder}/{classes}"))[logits.argmax()])
```
"""


def export_model(
    results: Path,
    run_id: str,
    to: Path,
    variant: str | None = None,
    *,
    licence: str | None = None,
    repo: str | None = None,
) -> FineTuned:
    """Write the model of one of a run's variants; weights that are not kept are made again.

    The folder appears whole or not at all.

    Args:
        results: folder of the results.
        run_id: of a run that is done.
        to: folder to make.
        variant: one of the run's variants; by default the one that stands for the method.
        licence: identifier for the model card, such as ``mit``.
        repo: of the Hub, which the folder is to become.

    Returns:
        the model.

    Raises:
        InputError: there is something at ``to``, the model has what plain open_clip has not, or it
            cannot be made; see ``finetuned.load``.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"--to {to}: there is something already; name a new folder")
    model = load(results, run_id, variant)
    if any(name.startswith("visual.prompts.") for name in model.clip.state_dict()):
        raise InputError(
            f"run {run_id}: its towers have learned prompts, which open_clip's models have not; "
            "shiftbench.load_model gives it"
        )
    own = [
        row for row in rows(public(store.read(results, [run_id]))) if row.variant == model.variant
    ]
    temporary = to.with_name(f".{to.name}.{uuid4().hex[:8]}.tmp")
    try:
        temporary.mkdir(parents=True)
        _write(temporary, model, to.name if repo is None else repo)
        place = f"local-dir:{to}" if repo is None else f"hf-hub:{repo}"
        card = model_card(own, model, place, licence)
        (temporary / "README.md").write_text(card, encoding="utf-8")
        if to.exists():
            to.rmdir()
        temporary.rename(to)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return model


def _write(folder: Path, model: FineTuned, name: str) -> None:
    """Everything but the model card."""
    save = getattr(model.tokenizer, "save_pretrained", None)
    config = json.loads(json.dumps(dict(model.config)))
    if save is not None:
        save(str(folder))
    if config["text_cfg"].get("hf_tokenizer_name"):
        config["text_cfg"]["hf_tokenizer_name"] = name  # its files are in the folder
    document = {"model_cfg": config, "preprocess_cfg": _preprocess_cfg(model.preprocessing)}
    _write_json(folder / CONFIG, document)
    _write_json(folder / CLASSES, list(model.classes))
    weights = {key: tensor.contiguous() for key, tensor in model.clip.state_dict().items()}
    save_file(weights, folder / WEIGHTS[0], {"format": "pt"})
    head = {"weight": model.head.weight.detach(), "bias": model.head.bias.detach()}
    save_file({key: tensor.contiguous() for key, tensor in head.items()}, folder / CLASSIFIER)


def _write_json(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _preprocess_cfg(preprocessing: Preprocessing) -> dict[str, Any]:
    """open_clip's ``preprocess_cfg``."""
    return {
        "size": preprocessing.size,
        "mode": "RGB",
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "interpolation": preprocessing.interpolation,
        "resize_mode": preprocessing.resize,
        "fill_color": 0,
    }


def model_card(of_run: Sequence[Row], model: FineTuned, place: str, licence: str | None) -> str:
    """``README.md`` with the Hub's metadata, the values that were measured, and how to use it.

    Args:
        of_run: the rows of the run and the variant.
        model: that is described.
        place: by which open_clip loads it: ``local-dir:`` and the folder, or ``hf-hub:`` and the
            repository.
        licence: its identifier; ``None`` where nobody has said.
    """
    first = of_run[0]
    title = f"{first.label} of {first.backbone} on {first.task}"
    if model.variant:
        title += f", {model.variant}"
    measured = list({(row.evaluation_set, row.metric): row for row in of_run}.values())
    metadata = {
        "license": licence or UNKNOWN_LICENCE,
        "library_name": "open_clip",
        "pipeline_tag": "image-classification",
        "tags": ["clip", "robust-fine-tuning", "shiftbench"],
        "model-index": [{"name": title, "results": [_result(row) for row in measured]}],
    }
    kind, _, folder = place.partition(":")
    usage = USAGE.format(
        name=place,
        folder="FOLDER" if kind == "hf-hub" else folder,
        classifier=CLASSIFIER,
        classes=CLASSES,
    )
    return "\n".join(
        [
            f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---",
            f"# {title}\n",
            _described(first, model.variant),
            "\n## Measured\n",
            "| set | metric | value | 95% interval | images | remarks |",
            "|---|---|---|---|---|---|",
            *map(_measured, measured),
            f"\n## Use\n\n{usage}",
            f"`{CLASSES}` names the {len(model.classes)} classes in the order of the logits; "
            "`shiftbench predict` does the same from the command line.",
            "\n## Data and licence\n",
            _of_data(first),
            f"- licence: {licence or 'not stated; those of the pretrained model and data apply'}",
            "",
        ]
    )


def _result(row: Row) -> dict[str, Any]:
    """A value in the form of the Hub's ``model-index``."""
    return {
        "task": {"type": "image-classification"},
        "dataset": {"name": f"{row.task}, {row.evaluation_set}", "type": row.evaluation_set},
        "metrics": [{"type": row.metric, "value": row.value}],
    }


def _measured(row: Row) -> str:
    remarks = "; ".join(filter(None, (row.incomplete_reason, row.data_remark)))
    return (
        f"| {row.evaluation_set} | {row.metric} | {row.value:.4f} | {row.low:.4f} – {row.high:.4f} "
        f"({row.interval}) | {row.n:,} | {remarks} |"
    )


def _described(row: Row, variant: str) -> str:
    selections = {
        "fixed": "configured beforehand",
        "id-val": "selected on ID validation",
        "ood-val": "selected on OOD validation",
        "oracle": "selected on the test sets (oracle)",
    }
    chosen = selections.get(row.selection or "", "chosen by whoever exported it")
    parents = ", ".join(f"{parent.label} ({parent.run_id})" for parent in row.parents)
    lines = [
        f"- pretrained model: `{row.backbone}`",
        f"- method: `{row.method}` ({row.origin}), settings `{json.dumps(dict(row.config))}`",
        f"- variant: `{variant}`, {chosen}" if variant else "",
        f"- made from: {parents}" if parents else "",
        f"- run `{row.run_id}` of suite `{row.suite}`, seed {row.seed}, shiftbench "
        f"{row.shiftbench_version}{f', git {row.git_sha[:12]}' if row.git_sha else ''}",
        f"- test images seen: {row.leakage}" if row.leakage else "",
    ]
    return "\n".join(filter(None, lines))


def _of_data(row: Row) -> str:
    """What the weights have been trained on, as far as it is known."""
    data = f"{row.task} ({row.data_kind})"
    if row.reference:
        return f"- classes of {data}; nothing was trained"
    if row.trains_on_id_val is None:
        return f"- classes of {data}; what the weights were trained on elsewhere is not known"
    shots = "all images" if row.shots is None else f"{row.shots} images per class"
    held_out = f" but {row.held_out:.0%} for ID validation" if row.held_out else ""
    return (
        f"- trained on {data}, {shots}{held_out}; fingerprint of the files "
        f"`{row.train_fingerprint}`"
    )
