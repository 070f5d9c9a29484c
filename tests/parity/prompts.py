"""PromptSRC, compared with its released code on the same weights, prompts and images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from shiftbench.data.batches import WorkerPlace
from shiftbench.methods.base import Batch, Context
from shiftbench.methods.builtin.prompt_src import PromptSrc, PromptSrcConfig, gaussian_shares
from shiftbench.models.backbones import load_backbone
from shiftbench.models.classifier import zero_shot_classifier
from shiftbench.models.prompted import prompted, prompts_of
from torch import Tensor, nn
from torch.nn.functional import normalize

from tests.parity.differences import Comparison, Difference, difference
from tests.parity.official import load, stand_in

NAMES = ["cat", "dog", "ship", "truck"]
DEPTH, N, SIZE = 2, 4, 32


def _trainer(root: Path) -> Any:
    registry = mock.MagicMock()
    registry.register.return_value = lambda of: of
    dassl = {
        "engine": {"TRAINER_REGISTRY": registry, "TrainerX": object},
        "utils": dict.fromkeys(("load_pretrained_weights", "load_checkpoint")),
        "optim": dict.fromkeys(("build_optimizer", "build_lr_scheduler")),
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(stand_in("dassl"))
        for name, functions in dassl.items():
            stack.enter_context(stand_in(f"dassl.{name}", **functions))
        return load(root, "trainers.promptsrc", packages="trainers clip")


def _design(depth: int) -> dict[str, Any]:
    n = N if depth else 0
    own = {"vision_depth": depth, "language_depth": depth, "vision_ctx": n, "language_ctx": n}
    return {"trainer": "IVLP", **own}


def _towers(root: Path, clip: Any, depth: int, mask: Tensor) -> tuple[Any, Any]:
    """Their image tower and text transformer, with the weights of ours."""
    module = load(root, "clip.model", packages="clip")
    module.QuickGELU = nn.GELU  # as the backbone has it
    visual = module.VisionTransformer(SIZE, 4, 96, 4, 3, 64, _design(depth))
    text = module.Transformer(64, 2, 2, mask, depth, True, _design(depth))
    for theirs, ours in ((visual, clip.visual), (text, clip.transformer)):
        missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=False)
        assert not unexpected
        assert all("VPT" in name for name in missing)
    return visual.eval(), text.eval()


def prompt_src(root: Path) -> Iterator[Difference]:
    """Both towers with prompts, the loss with its gradient, and the weights of epochs."""
    trainer, backbone = _trainer(root), load_backbone("miniature")
    clip: Any = backbone.clip
    method = PromptSrc(PromptSrcConfig(depth=DEPTH))
    texts = [[f"a photo of a {name}.", f"a sketch of a {name}."] for name in NAMES]
    shape = method.architecture().prompts
    assert shape is not None
    plain = zero_shot_classifier(backbone, texts, text=True)
    model = prompted(plain, backbone.tokenizer, shape, NAMES)
    assert model.prompts is not None
    method.ready(model, Context({}, lambda: iter(()), 10, 0, WorkerPlace()))
    of_image, of_text = prompts_of(model)
    visual, transformer = _towers(root, clip, DEPTH, clip.attn_mask)
    frozen, _ = _towers(root, clip, 0, clip.attn_mask)
    with torch.no_grad():
        for vectors in (of_image.vectors, of_text.vectors):
            vectors.add_(0.1 * torch.arange(vectors.numel()).view(vectors.shape).sin())
        visual.VPT.copy_(of_image.vectors[0])
        for i in range(1, DEPTH):
            visual.transformer.resblocks[i].VPT_shallow.copy_(of_image.vectors[i])
            transformer.resblocks[i].VPT_shallow.copy_(of_text.vectors[i])

    custom = trainer.CustomCLIP.__new__(trainer.CustomCLIP)
    nn.Module.__init__(custom)
    embedded = clip.token_embedding(model.prompts[0]).detach()
    context = of_text.vectors[0].detach().clone().requires_grad_()
    learner = trainer.VLPromptLearner.__new__(trainer.VLPromptLearner)
    nn.Module.__init__(learner)
    learner.ctx, learner.n_cls, learner.ZS_image_encoder = nn.Parameter(context), 4, frozen
    learner.token_prefix, learner.token_suffix = embedded[:, :1], embedded[:, 1 + N :]
    learner.fixed_embeddings = model.head.weight.detach()
    tower = {key: getattr(clip, key) for key in ("positional_embedding", "ln_final")}
    tower |= {"text_projection": clip.text_projection, "dtype": torch.float32}
    custom.prompt_learner, custom.tokenized_prompts = learner, model.prompts[0]
    custom.text_encoder = trainer.TextEncoder(SimpleNamespace(transformer=transformer, **tower))
    custom.image_encoder, custom.dtype = visual, torch.float32
    custom.logit_scale = clip.logit_scale

    draw = torch.Generator().manual_seed(1)
    images, labels = torch.randn(6, 3, SIZE, SIZE, generator=draw), torch.arange(6) % 4
    settings = SimpleNamespace(PREC="fp32", TEXT_LOSS_WEIGHT=25, IMAGE_LOSS_WEIGHT=10)
    run = trainer.PromptSRC.__new__(trainer.PromptSRC)
    run.cfg = SimpleNamespace(TRAINER=SimpleNamespace(PROMPTSRC=settings))
    run.model, run.optim, run.scaler = custom, mock.MagicMock(), None
    run.parse_batch_train = lambda batch: batch
    run.batch_idx, run.num_batches, run.step_counter, custom.total_epochs = 0, 9, 1, 20
    with (
        mock.patch.object(Tensor, "half", lambda tensor: tensor),
        mock.patch.object(Tensor, "cuda", lambda tensor: tensor),
    ):
        said = custom(images, labels)
        loss = run.forward_backward((images, labels))["loss"]
    found = method.loss(model, Batch(images, labels))
    found["loss"].backward()
    yield difference("PromptSRC, image features", model.features(images), said[4], 1e-5)
    yield difference("PromptSRC, texts", model.encode_text(model.prompts[0]), said[1], 1e-5)
    yield difference("PromptSRC, frozen texts", method._texts, normalize(said[2], dim=1), 1e-5)
    yield difference("PromptSRC, loss", found["loss"], loss, 1e-5)
    theirs = [learner.ctx.grad, transformer.resblocks[1].VPT_shallow.grad]
    assert of_text.vectors.grad is not None
    yield difference("PromptSRC, gradient", of_text.vectors.grad, torch.stack(theirs), 1e-3)
    theirs = [visual.VPT.grad, visual.transformer.resblocks[1].VPT_shallow.grad]
    assert of_image.vectors.grad is not None
    ours = of_image.vectors.grad
    yield difference("PromptSRC, gradient in the image tower", ours, torch.stack(theirs), 1e-3)

    gauss = run.get_gauss(15, 1)
    total = sum(gauss(epoch) for epoch in range(1, 21))
    weights = [0.0] * 20
    for i, share in enumerate(gaussian_shares(20, 15, 1)):
        weights = [w * (1 - share) for w in weights[:i]] + [share] + weights[i + 1 :]
    yield difference(
        "PromptSRC, weights of epochs", weights, [gauss(i) / total for i in range(1, 21)], 1e-12
    )


PROMPTS: tuple[Comparison, ...] = (("PromptSRC", ".", prompt_src),)
