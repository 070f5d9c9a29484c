"""CLIP's own tokenizer over a small vocabulary, for backbones with a tiny text tower."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from open_clip import SimpleTokenizer

PADDING, UNKNOWN, START = 0, 1, 2
_SPECIAL = 3  # ids below the first kept one


@lru_cache(maxsize=1)
def _bpe() -> SimpleTokenizer:
    return SimpleTokenizer()


def encode(text: str) -> list[int]:
    """Return CLIP's byte-pair ids of a text, without start and end."""
    return list(_bpe().encode(text))


class CompactTokenizer:
    """Maps CLIP's byte-pair ids to the few that a backbone keeps.

    Ids are padding, unknown, start, then the kept ids in order, then the end of text: it must be
    the largest because open_clip pools a text at its largest id.
    """

    def __init__(self, vocabulary: Sequence[int], context_length: int) -> None:
        """Keep the byte-pair ids of `vocabulary` and cut texts to `context_length` ids."""
        if len(set(vocabulary)) != len(vocabulary):
            raise ValueError("the vocabulary repeats ids")
        if context_length < 3:
            raise ValueError("a context holds at least start, one token and end")
        self.context_length = context_length
        self._compact = {kept: _SPECIAL + i for i, kept in enumerate(sorted(vocabulary))}
        self.end = _SPECIAL + len(vocabulary)

    @classmethod
    def load(cls, directory: str | Path) -> CompactTokenizer:
        """Read `vocabulary.json` and the context length of `open_clip_config.json`."""
        folder = Path(directory)
        vocabulary = json.loads((folder / "vocabulary.json").read_text())
        config = json.loads((folder / "open_clip_config.json").read_text())
        return cls(vocabulary, config["model_cfg"]["text_cfg"]["context_length"])

    def save_pretrained(self, directory: str | Path) -> None:
        """Write `vocabulary.json`, from which `load` makes it again."""
        (Path(directory) / "vocabulary.json").write_text(json.dumps(sorted(self._compact)))

    @property
    def vocab_size(self) -> int:
        """Number of ids, the size of the text tower's embedding table."""
        return self.end + 1

    def __call__(self, texts: str | Sequence[str]) -> torch.LongTensor:
        """Return int64 (n, context_length): start, tokens, end, padding; long texts are cut."""
        listed = [texts] if isinstance(texts, str) else list(texts)
        ids = torch.full((len(listed), self.context_length), PADDING, dtype=torch.long)
        for row, text in enumerate(listed):
            kept = [self._compact.get(token, UNKNOWN) for token in encode(text)]
            tokens = [START, *kept[: self.context_length - 2], self.end]
            ids[row, : len(tokens)] = torch.tensor(tokens)
        return torch.LongTensor(ids)
