"""The compact tokenizer."""

from __future__ import annotations

import open_clip
import pytest
import torch
from shiftbench.data.miniature.captions import general_captions, task_captions, vocabulary
from shiftbench.data.miniature.definition import CLASSES, backbone_dir
from shiftbench.data.miniature.tokenizer import (
    PADDING,
    START,
    UNKNOWN,
    CompactTokenizer,
    encode,
)


@pytest.fixture(scope="module")
def tokenizer() -> CompactTokenizer:
    return CompactTokenizer(vocabulary(), 24)


def test_layout_of_ids(tokenizer: CompactTokenizer) -> None:
    ids = tokenizer(["a photo of a heart.", "heart"])
    assert ids.shape == (2, 24)
    assert ids.dtype == torch.long
    assert ids[:, 0].tolist() == [START, START]
    assert ids[1, 2:4].tolist() == [tokenizer.end, PADDING]
    assert ids[0, 5] == ids[1, 1]
    assert ids.max() == tokenizer.end == tokenizer.vocab_size - 1
    assert tokenizer("heart").tolist() == ids[1:].tolist()


def test_agrees_with_clip_on_what_it_keeps() -> None:
    text = "a photo of a six pointed star."
    full = open_clip.SimpleTokenizer()(text, context_length=24)[0]
    kept = sorted(set(encode(text)))
    compact = CompactTokenizer(kept, 24)(text)[0]
    assert (compact > 0).sum() == (full > 0).sum()
    inner = compact[(compact > START) & (compact < len(kept) + 3)]
    assert [kept[i - 3] for i in inner.tolist()] == encode(text)


def test_unknown_words_become_one_id(tokenizer: CompactTokenizer) -> None:
    ids = tokenizer("a zebra")[0].tolist()
    assert ids[2] == UNKNOWN


def test_long_texts_are_cut_and_still_end(tokenizer: CompactTokenizer) -> None:
    ids = tokenizer("a " * 100)[0]
    assert ids[-1] == tokenizer.end
    assert (ids == tokenizer.end).sum() == 1


def test_every_prompt_fits_and_is_known(tokenizer: CompactTokenizer) -> None:
    names = open_clip.zero_shot_metadata.OPENAI_IMAGENET_TEMPLATES
    assert len(names) == 80
    for task, classes in CLASSES.items():
        for name in classes:
            ids = tokenizer([*task_captions(task, name), *general_captions(name)])
            assert not (ids == UNKNOWN).any()
            assert (ids[:, -1] == PADDING).all()


def test_bad_vocabularies_are_refused() -> None:
    with pytest.raises(ValueError, match="repeats"):
        CompactTokenizer([1, 1], 24)
    with pytest.raises(ValueError, match="context"):
        CompactTokenizer([1], 2)


def test_the_shipped_vocabulary_is_current() -> None:
    loaded = CompactTokenizer.load(backbone_dir())
    fresh = CompactTokenizer(vocabulary(), loaded.context_length)
    text = ["an aerial photo of a wind_farm in oceania.", "spotted deer in the wild."]
    assert loaded(text).tolist() == fresh(text).tolist()
