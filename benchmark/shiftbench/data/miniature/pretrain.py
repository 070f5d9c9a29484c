"""Pretrain a tiny CLIP backbone: `python -m shiftbench.data.miniature.pretrain --out DIRECTORY`.

By default it learns the miniature world from its broad drawing; with `--data FILE.parquet`, images
and class names of a Hugging Face-style Parquet file. The result is a directory that open_clip
loads as `local-dir:DIRECTORY`, plus `vocabulary.json` for `CompactTokenizer`.

The shipped backbone has the default settings, which took 73 minutes of processor time on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP
from open_clip.transformer import PatchDropout
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from shiftbench.data.miniature.captions import vocabulary
from shiftbench.data.miniature.corpus import Corpus, Exam, parquet_corpus, world_corpus
from shiftbench.data.miniature.definition import backbone_dir
from shiftbench.data.miniature.tokenizer import CompactTokenizer

CONTEXT_LENGTH = 24


@dataclass(frozen=True)
class PretrainingSettings:
    """Everything that decides the outcome of pretraining."""

    epochs: float = 10.0
    """Passes over the images."""
    images: int = 60_000
    """Number of images to draw, or to take from a Parquet file."""
    batch: int = 128
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warmup: float = 0.08
    """Share of the steps with a rising learning rate; it falls as a cosine afterwards."""
    masked: float = 0.5
    """Share of the image patches left out while `unmasked_from` has not come: cheaper steps."""
    unmasked_from: float = 0.6
    """Share of the steps after which all patches are seen."""
    width: int = 96
    layers: int = 4
    patch: int = 4
    seed: int = 0
    threads: int = 2


def model_config(
    settings: PretrainingSettings, tokenizer: CompactTokenizer, size: int
) -> dict[str, Any]:
    """Return open_clip's configuration of the backbone, ready for `open_clip_config.json`."""
    vision = {
        "image_size": size,
        "layers": settings.layers,
        "width": settings.width,
        "head_width": 32,
        "patch_size": settings.patch,
    }
    text = {
        "context_length": tokenizer.context_length,
        "vocab_size": tokenizer.vocab_size,
        "width": 64,
        "heads": 2,
        "layers": 2,
    }
    return {
        "model_cfg": {
            "embed_dim": 64,
            "quick_gelu": False,
            "vision_cfg": vision,
            "text_cfg": text,
        },
        "preprocess_cfg": {
            "size": size,
            "mean": list(OPENAI_DATASET_MEAN),
            "std": list(OPENAI_DATASET_STD),
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }


def to_input(images: Tensor) -> Tensor:
    """Return uint8 images (n, 3, h, w) as the normalised float32 input of the model."""
    mean = torch.tensor(OPENAI_DATASET_MEAN)[:, None, None]
    std = torch.tensor(OPENAI_DATASET_STD)[:, None, None]
    return (images.float() / 255 - mean) / std


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, match: Tensor) -> Tensor:
    """Symmetric InfoNCE in which every text of an image's concept is a positive, and conversely.

    With a few dozen concepts, most of the batch's other captions of a concept are true of an
    image, so that treating them as negatives would teach contradictions.

    Args:
        image: float (n, d), normalised.
        text: float (m, d), normalised.
        scale: float (), the inverse temperature.
        match: bool (n, m), whether a text is of an image's concept.
    """
    logits = scale * image @ text.T
    wanted = match.to(logits.dtype)
    by_image = cross_entropy(logits, wanted / wanted.sum(1, keepdim=True))
    by_text = cross_entropy(logits.T, wanted.T / wanted.T.sum(1, keepdim=True))
    return (by_image + by_text) / 2


@torch.no_grad()
def class_embeddings(
    model: CLIP, tokenizer: CompactTokenizer, prompts: Sequence[list[str]]
) -> Tensor:
    """Return the normalised mean embedding of every class's prompts, float32 (classes, d)."""
    model.eval()
    means = [model.encode_text(tokenizer(texts), normalize=True).mean(0) for texts in prompts]
    return normalize(torch.stack(means), dim=-1)


@torch.no_grad()
def zero_shot_accuracy(model: CLIP, classes: Tensor, exam: Exam) -> float:
    """Return the share of an exam's images whose nearest class embedding is the right one."""
    model.eval()
    right = 0
    for rows in torch.arange(len(exam.label)).chunk(max(1, len(exam.label) // 500)):
        features = model.encode_image(to_input(exam.images[rows]), normalize=True)
        right += int(((features @ classes.T).argmax(1) == exam.label[rows]).sum())
    return right / max(1, len(exam.label))


def _augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images and shift all by up to an eighth of their side."""
    n, _, height, width = images.shape
    mirror = torch.rand(n, generator=generator) < 0.5
    images = torch.where(mirror[:, None, None, None], images.flip(-1), images)
    reach = height // 8
    dy, dx = torch.randint(-reach, reach + 1, (2, n, 1, 1), generator=generator)
    rows = (torch.arange(height)[:, None] + dy).clamp(0, height - 1)
    columns = (torch.arange(width)[None, :] + dx).clamp(0, width - 1)
    return images[torch.arange(n)[:, None, None], :, rows, columns].permute(0, 3, 1, 2)


def _schedule(settings: PretrainingSettings, progress: float) -> float:
    if progress < settings.warmup:
        return settings.learning_rate * progress / settings.warmup
    done = (progress - settings.warmup) / (1 - settings.warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def _optimizer(model: CLIP, settings: PretrainingSettings) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), foreach=True)


def few_per_concept(concept: Tensor, generator: torch.Generator, most: int = 2) -> Tensor:
    """Return rows that hold each concept of a batch, at random but at most `most` times."""
    shuffled = torch.randperm(len(concept), generator=generator)
    order = shuffled[concept[shuffled].argsort(stable=True)]
    ordered = concept[order]
    rank = torch.arange(len(order)) - torch.searchsorted(ordered, ordered)
    return order[rank < most]


def _step_loss(
    model: CLIP, corpus: Corpus, ids: Tensor, rows: Tensor, generator: torch.Generator
) -> Tensor:
    pick = torch.randint(corpus.choices.shape[1], (len(rows), 1), generator=generator)
    chosen = corpus.choices[rows].gather(1, pick)[:, 0]
    kept = few_per_concept(corpus.concept[rows], generator)
    images = corpus.images[rows]
    images = _augmented(images, generator) if corpus.augment else images
    image = model.encode_image(to_input(images), normalize=True)
    text = model.encode_text(ids[chosen[kept]], normalize=True)
    match = corpus.concept[rows][:, None] == corpus.concept[rows][kept]
    return contrastive_loss(image, text, model.logit_scale.exp(), match)


def report(model: CLIP, tokenizer: CompactTokenizer, corpus: Corpus) -> str:
    """Return the zero-shot accuracy of every exam, in one line."""
    prompts = {exam.subject: exam.prompts for exam in corpus.exams}
    classes = {name: class_embeddings(model, tokenizer, p) for name, p in prompts.items()}
    scores = [
        (exam.name, zero_shot_accuracy(model, classes[exam.subject], exam)) for exam in corpus.exams
    ]
    return "  ".join(f"{name} {score:.3f}" for name, score in scores)


def train(
    model: CLIP,
    tokenizer: CompactTokenizer,
    corpus: Corpus,
    settings: PretrainingSettings,
    after_epoch: Callable[[], None],
) -> None:
    """Train a model in place, printing the loss and, after every epoch, zero-shot accuracies."""
    generator = torch.Generator().manual_seed(settings.seed)
    optimizer = _optimizer(model, settings)
    ids = tokenizer(corpus.texts)
    per_epoch = len(corpus.images) // settings.batch
    total = max(1, round(settings.epochs * per_epoch))
    order = torch.empty(0, dtype=torch.long)
    began = time.monotonic()
    for step in range(total):
        if step % per_epoch == 0:
            order = torch.randperm(len(corpus.images), generator=generator)
        if step == round(settings.unmasked_from * total):
            model.visual.patch_dropout = nn.Identity()
        at = step % per_epoch * settings.batch
        model.train()
        loss = _step_loss(model, corpus, ids, order[at : at + settings.batch], generator)
        for group in optimizer.param_groups:
            group["lr"] = _schedule(settings, (step + 1) / total)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        if step % 50 == 0:
            print(
                f"{step}/{total} loss {loss.item():.4f} {time.monotonic() - began:.0f}s", flush=True
            )
        if (step + 1) % per_epoch == 0:
            print(report(model, tokenizer, corpus), flush=True)
            after_epoch()


def save(
    model: CLIP,
    config: dict[str, Any],
    kept: Sequence[int],
    settings: PretrainingSettings,
    out: Path,
) -> None:
    """Write the backbone: configuration, half-precision weights, vocabulary and settings."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    (out / "open_clip_model.safetensors").write_bytes(to_safetensors(weights))
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (out / "vocabulary.json").write_text(json.dumps(list(kept)) + "\n")
    (out / "recipe.json").write_text(json.dumps(asdict(settings), indent=2) + "\n")


def pretrain(corpus: Corpus, kept: Sequence[int], settings: PretrainingSettings, out: Path) -> CLIP:
    """Build a backbone, train it on a corpus and write it to `out`.

    Args:
        corpus: captioned images.
        kept: sorted byte-pair ids of the vocabulary.
        settings: sizes, schedule and seed.
        out: directory to write.
    """
    tokenizer = CompactTokenizer(kept, CONTEXT_LENGTH)
    config = model_config(settings, tokenizer, corpus.images.shape[-1])
    torch.manual_seed(settings.seed)
    model = CLIP(**config["model_cfg"])
    model.visual.patch_dropout = PatchDropout(settings.masked)

    def keep() -> None:
        save(model, config, kept, settings, out)

    train(model, tokenizer, corpus, settings, keep)
    keep()
    return model


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=backbone_dir())
    parser.add_argument("--data", type=Path, help="Parquet file to learn instead of the world")
    parser.add_argument("--label-names", nargs="+", help="class names, if the file has none")
    for name, default in asdict(PretrainingSettings()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    given = vars(parser.parse_args(argv))
    settings = PretrainingSettings(**{name: given[name] for name in asdict(PretrainingSettings())})
    torch.set_num_threads(settings.threads)
    torch.use_deterministic_algorithms(True)
    if given["data"] is None:
        corpus, kept = world_corpus(settings.images, settings.seed), vocabulary()
    else:
        corpus = parquet_corpus(given["data"], given["label_names"], settings.images, settings.seed)
        kept = vocabulary(text for text in corpus.texts)
    pretrain(corpus, kept, settings, given["out"])


if __name__ == "__main__":
    main()
