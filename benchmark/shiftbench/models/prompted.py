"""Learned vectors among the tokens of both towers, kept with their weights as other tensors are.

A tower with them has two tensors more, ``prompts.vectors`` and ``prompts.share``. At share 0, where
they begin, it computes what the pretrained one does; at 1 the vectors count in full. So weights of
such a model are interpolated, averaged, saved and resumed as any others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from shiftbench.core.errors import RunFailedError
from shiftbench.models.classifier import ImageClassifier


class PromptShape(NamedTuple):
    """Where vectors go.

    Attributes:
        words: what texts say before the name of a class; the text tower's vectors come in place of
            their tokens.
        image: vectors that follow the patches of an image.
        depth: blocks of either tower, from the first, that have vectors of their own; what becomes
            of those of the last of them goes through the others.
    """

    words: str
    image: int
    depth: int

    def texts(self, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """The one text of each class."""
        return tuple((f"{self.words} {name}.",) for name in names)


class Prompts(nn.Module):
    """The vectors of a tower, in float32.

    Attributes:
        vectors: (depth, n, width).
        share: scalar; 0 for the pretrained tower, 1 for the prompted one.
    """

    def __init__(self, depth: int, n: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(depth, n, width))
        self.share = nn.Parameter(torch.zeros(()))


class ImagePrompts(Prompts):
    """Vectors after an image's tokens; what is said of attention to them is share times as likely.

    That is the logarithm of the share added to the logits of attention.
    """

    def join(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Before the first of all: tokens (n, length, width) get the vectors behind them."""
        x, *others = args
        return torch.cat([x, self._of(0, x)], dim=1), *others

    def attended(
        self, i: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Before block i: its own vectors, if it has some, and how much they are attended to."""
        x, n = args[0], self.vectors.shape[1]
        if 0 < i < len(self.vectors):
            x = torch.cat([x[:, :-n], self._of(i, x)], dim=1)
        mask = self.vectors.new_zeros(x.shape[1] - n)
        own = self.share.clamp(min=0).log().expand(n)
        mask = torch.cat([mask, own]).expand(x.shape[1], -1)
        return (x,), {**kwargs, "attn_mask": mask.to(x.dtype)}

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """After the last block: the image's own tokens."""
        return output[:, : -self.vectors.shape[1]]

    def _of(self, i: int, x: Tensor) -> Tensor:
        return self.vectors[i].to(x.dtype).expand(len(x), -1, -1)


class TextPrompts(Prompts):
    """Vectors in place of some of a text's tokens; at a share between, both are mixed.

    Args:
        begin: position of the first.
    """

    def __init__(self, depth: int, n: int, width: int, begin: int) -> None:
        super().__init__(depth, n, width)
        self.begin = begin

    def embedded(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """After tokens were embedded (n, length, width)."""
        return self._mixed(0, output)

    def replace(self, i: int, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Before block i."""
        x, *others = args
        return self._mixed(i, x), *others

    def _mixed(self, i: int, x: Tensor) -> Tensor:
        end = self.begin + self.vectors.shape[1]
        vectors = self.vectors[i].to(x.dtype).expand(len(x), -1, -1)
        mixed = torch.lerp(x[:, self.begin : end], vectors, self.share.to(x.dtype))
        return torch.cat([x[:, : self.begin], mixed, x[:, end:]], dim=1)


def prompts_of(model: ImageClassifier) -> tuple[ImagePrompts, TextPrompts]:
    """Those of both towers of a model that has some."""
    found = (model.visual.get_submodule("prompts"), model.text_tower.get_submodule("prompts"))
    of_image, of_text = found
    if not (isinstance(of_image, ImagePrompts) and isinstance(of_text, TextPrompts)):
        raise TypeError("this model has no prompts in its towers")
    return of_image, of_text


def attention_blocks(tower: nn.Module, where: str) -> list[nn.Module]:
    """The blocks of a tower, in their order: what has an attention that is called ``attn``.

    Raises:
        RunFailedError: none has one that this package knows to prompt.
    """
    found = [
        module
        for module in tower.modules()
        if isinstance(getattr(module, "attn", None), nn.MultiheadAttention)
    ]
    if not found or not all(block.get_submodule("attn").batch_first for block in found):
        raise RunFailedError(
            f"the {where} of this backbone takes no prompts: it has none of open_clip's own "
            "blocks of a transformer"
        )
    return found


def add_prompts(model: ImageClassifier, shape: PromptShape, begin: int, n: int) -> None:
    """Give both towers their vectors, in place; the model computes what it did.

    Args:
        model: with a text tower.
        shape: where they go.
        begin: position in texts of the first token that they come in place of.
        n: how many.

    Raises:
        RunFailedError: a tower takes none.
    """
    visual, text = model.visual, model.text_tower
    blocks = attention_blocks(visual, "image tower")
    attention: Any = blocks[0].get_submodule("attn")
    of_image = ImagePrompts(min(shape.depth, len(blocks)), shape.image, attention.embed_dim)
    (getattr(visual, "ln_pre", None) or blocks[0]).register_forward_pre_hook(of_image.join)
    for i, block in enumerate(blocks):
        block.register_forward_pre_hook(partial(of_image.attended, i), with_kwargs=True)
    blocks[-1].register_forward_hook(of_image.leave)
    visual.prompts = of_image.to(next(visual.parameters()).device)
    blocks = attention_blocks(text, "text tower")
    embedding = token_embedding(text)
    depth = min(shape.depth, len(blocks))
    of_text = TextPrompts(depth, n, embedding.weight.shape[1], begin)
    embedding.register_forward_hook(of_text.embedded)
    for i, block in enumerate(blocks[1:depth], start=1):
        block.register_forward_pre_hook(partial(of_text.replace, i))
    text.prompts = of_text.to(embedding.weight.device)


def prompted(
    model: ImageClassifier,
    tokenizer: Callable[[Sequence[str]], Tensor],
    shape: PromptShape,
    names: Sequence[str],
) -> ImageClassifier:
    """A copy of a pretrained classifier whose towers have prompts, which have no effect yet.

    Its texts are those of the shape, one for each class; its head stays what it was.

    Args:
        model: with a text tower.
        tokenizer: of the backbone.
        shape: where the prompts go.
        names: of the classes.

    Raises:
        RunFailedError: a tower takes no prompts, or the words are no tokens of their own.
    """
    copied = copy.deepcopy(model)
    begin, n = place_of(tokenizer, shape.words)
    tokens = tokenizer([text for (text,) in shape.texts(names)])
    words = tokens[:, begin : begin + n]
    if n < 1 or bool((words != tokenizer([shape.words])[:, begin : begin + n]).any()):
        raise RunFailedError(f'the words "{shape.words}" are no tokens of their own in a text')
    add_prompts(copied, shape, begin, n)
    copied.prompts, copied.n_prompts = tokens[None], (1,) * len(names)
    return copied.requires_grad_(True).eval()


def place_of(tokenizer: Callable[[Sequence[str]], Tensor], words: str) -> tuple[int, int]:
    """The position of the first token of some words with which a text begins, and their number."""
    (nothing, said), lengths = tokenizer(["", words]), []
    for tokens in (nothing, said):
        backwards = tokens.flip(0)
        recurs = int((backwards == backwards[0]).long().cumprod(0).sum())
        lengths.append(len(tokens) - recurs)
    begin = int(lengths[0] > 0 and bool(nothing[0] == said[0]))
    return begin, lengths[1] - lengths[0]


def token_embedding(tower: nn.Module) -> nn.Embedding:
    """A text tower's embedding of tokens.

    Raises:
        RunFailedError: it has none by open_clip's name.
    """
    for name, module in tower.named_modules():
        if name.rpartition(".")[2] == "token_embedding" and isinstance(module, nn.Embedding):
            return module
    raise RunFailedError("this backbone's text tower has no module token_embedding")
