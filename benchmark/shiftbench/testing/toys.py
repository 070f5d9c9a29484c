"""A classifier and data so small that a training takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from shiftbench.data.batches import WorkerPlace, caption_templates, micro_batches
from shiftbench.execution.schedule import Schedule
from shiftbench.methods.base import (
    Architecture,
    Batch,
    Context,
    Derivation,
    Parent,
    TrainedMethod,
)
from shiftbench.methods.config import TrainingConfig
from shiftbench.methods.members import Members, Outputs
from shiftbench.models.classifier import ImageClassifier
from shiftbench.models.prompted import add_prompts
from shiftbench.models.weights import interpolate

if TYPE_CHECKING:
    from shiftbench.methods.members import Positions

CLASSES = 3
EXAMPLES = 30
TEMPLATES = 2


class ToyAttention(nn.Module):
    """One block with the names of open_clip's: attention with a norm before it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, 2, bias=False, batch_first=True)
        self.ln = nn.LayerNorm(width)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """(n, length, width) to the same."""
        y = self.ln(x)
        attended: Tensor = self.attn(y, y, y, need_weights=False, attn_mask=attn_mask)[0]
        return x + attended


class ToyTower(nn.Module):
    """Images (n, 3, 4, 4) to features (n, 8): four patches, one block, a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 2, 2)
        self.positional_embedding = nn.Parameter(torch.zeros(4, 16))
        self.block = ToyAttention(16)
        self.proj = nn.Linear(16, 8)

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, 3, 4, 4) to features (n, 8)."""
        patches = self.conv1(images).flatten(2).transpose(1, 2) + self.positional_embedding
        projected: Tensor = self.proj(self.block(patches).mean(1))
        return projected


class ToyText(nn.Module):
    """Token ids (n, 3) to embeddings (n, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(8, 8)
        self.block = ToyAttention(8)
        self.text_projection = nn.Linear(8, 8)
        self.logit_scale = nn.Parameter(torch.tensor(1.5))

    def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
        """Embeddings (n, 8) of token ids (n, 3)."""
        attended = self.block(self.token_embedding(tokens))
        embedded: Tensor = self.text_projection(torch.tanh(attended).mean(1))
        return nn.functional.normalize(embedded, dim=-1) if normalize else embedded


def make_prompts() -> Tensor:
    """Token ids (templates, classes, 3): template, class, end."""
    template = torch.arange(TEMPLATES).view(-1, 1).expand(-1, CLASSES)
    of_class = TEMPLATES + torch.arange(CLASSES).view(1, -1).expand(TEMPLATES, -1)
    return torch.stack([template, of_class, torch.full_like(template, 7)], dim=-1)


def make_model(seed: int = 0, architecture: Architecture | None = None) -> ImageClassifier:
    """A classifier of 3×4×4 images, in the architecture that a method asks for."""
    architecture = architecture or Architecture()
    torch.manual_seed(seed)
    tower, head, text = ToyTower(), nn.Linear(8, CLASSES), ToyText()
    if not architecture.text:
        return ImageClassifier(tower, head)
    model = ImageClassifier(tower, head, text, make_prompts())
    if architecture.prompts is not None:
        tokens = make_prompts()[:1]  # and two words between the first and the class
        words = torch.tensor([0, 1]).expand(1, CLASSES, 2)
        model.prompts = torch.cat([tokens[..., :1], words, tokens[..., 1:]], dim=-1)
        add_prompts(model, architecture.prompts, begin=1, n=2)
    model.head.requires_grad_(architecture.head == "linear")
    return model


def make_examples() -> tuple[Tensor, Tensor]:
    """Images (30, 3, 4, 4) whose mean tells the class, and labels (30,)."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(EXAMPLES) % CLASSES
    images = torch.randn(EXAMPLES, 3, 4, 4, generator=generator) + labels.view(-1, 1, 1, 1)
    return images, labels


def make_batch(features_of: ImageClassifier | None = None) -> Batch:
    """All examples in one batch, with captions."""
    images, labels = make_examples()
    with torch.no_grad():
        inputs = images if features_of is None else features_of.features(images)
    templates = torch.arange(EXAMPLES) // CLASSES % TEMPLATES
    return Batch(inputs, labels, make_prompts()[templates, labels])


def make_context(
    method: TrainedMethod[TrainingConfig],
    model: ImageClassifier,
    place: WorkerPlace = WorkerPlace(),
    parents: Mapping[Parent, Mapping[str, Tensor]] | None = None,
    steps: int = 10,
) -> Context:
    """What a method may look at; its parents are other random models unless given."""
    if parents is None:
        parents = {parent: make_model(seed=5).state_dict() for parent in method.parents()}

    def examples() -> Iterator[Batch]:
        whole = make_batch(model if method.inputs == "features" else None)
        for start in range(0, EXAMPLES, 8):
            part = slice(start, start + 8)
            yield Batch(whole.inputs[part], whole.labels[part])

    return Context(parents, examples, steps, seed=3, place=place)


def make_derivation(
    zero_shot: Mapping[str, Tensor],
    parents: Mapping[Parent, Mapping[str, Tensor]],
    id_val: Callable[[Mapping[str, Tensor]], float] = lambda weights: 0.0,
) -> Derivation:
    """What a derived method may look at; the examples are its ID validation set."""

    def model(weights: Mapping[str, Tensor]) -> ImageClassifier:
        loaded = make_model().eval()
        loaded.load_state_dict(dict(weights))
        return loaded

    def id_val_batches(size: int, seed: int) -> Iterator[Batch]:
        images, labels = make_examples()
        order = torch.randperm(EXAMPLES, generator=torch.Generator().manual_seed(seed))
        for part in torch.split(order, size):
            yield Batch(images[part], labels[part])

    names = tuple(f"class {i}" for i in range(CLASSES))
    return Derivation(zero_shot, parents, id_val, model, id_val_batches, seed=3, classes=names)


def make_members(
    zero_shot: ImageClassifier,
    parents: Mapping[Parent, ImageClassifier],
    rows: Positions | None = None,
) -> Members:
    """What models say of the examples, or of those at some positions."""
    images = make_examples()[0][slice(None) if rows is None else torch.from_numpy(rows)]

    def outputs(model: ImageClassifier, some: Tensor = images) -> Outputs:
        with torch.no_grad():
            features = model.features(some)
            return Outputs(features.numpy(), model.classify(features).numpy())

    def between(parent: Parent, alpha: float, positions: Positions) -> Outputs:
        model = make_model()
        ends = zero_shot.state_dict(), parents[parent].state_dict()
        model.load_state_dict(interpolate(*ends, alpha))
        return outputs(model, images[torch.from_numpy(positions)])

    said = {key: outputs(model) for key, model in parents.items()}
    return Members(outputs(zero_shot), said, between)


def make_batches(
    method: TrainedMethod[TrainingConfig],
    model: ImageClassifier,
    schedule: Schedule,
    place: WorkerPlace,
) -> Callable[[range], Iterator[Batch]]:
    """Batches of the examples, as features of ``model`` where the method trains on those."""
    images, labels = make_examples()
    with torch.no_grad():
        inputs = model.features(images) if method.inputs == "features" else images
    per_step = schedule.batch_size // place.size // schedule.micro_batch
    prompts = make_prompts()

    def batches(steps: range) -> Iterator[Batch]:
        size, micro = schedule.batch_size, schedule.micro_batch
        order = micro_batches(EXAMPLES, size, 0, steps, place, micro)
        for i, pairs in enumerate(order):
            positions, indices = torch.tensor(pairs).unbind(1)
            templates = torch.from_numpy(caption_templates(positions.numpy(), TEMPLATES, 0))
            captions = prompts[templates, labels[indices]] if method.captions else None
            yield Batch(inputs[indices], labels[indices], captions, steps[i // per_step])

    return batches
