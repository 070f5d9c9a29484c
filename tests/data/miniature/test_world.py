"""Drawing and corrupting images."""

from __future__ import annotations

import numpy as np
import pytest
from shiftbench.data.miniature import broad, styles
from shiftbench.data.miniature.corruptions import CORRUPTIONS, corrupt
from shiftbench.data.miniature.definition import CLASSES
from shiftbench.data.miniature.glyphs import INDEX, NAMES, RESOLUTION, fields, glyphs_of
from shiftbench.data.miniature.world import concatenate, render


def test_every_class_has_a_glyph_of_its_own() -> None:
    table = fields()
    assert table.shape == (len(NAMES), 2, RESOLUTION, RESOLUTION)
    assert table.dtype == np.float32
    assert len(set(NAMES)) == len(NAMES)
    area = (table[:, 0] < 0).mean((1, 2))
    assert area[INDEX["empty"]] == 0
    assert (np.delete(area, INDEX["empty"]) > 0.04).all()
    drawn = {(layers < 0).tobytes() for layers in table}
    assert len(drawn) == len(NAMES)


def test_a_circle_is_where_it_should_be() -> None:
    rng = np.random.default_rng(0)
    scene = styles.base(rng, np.array([INDEX["circle"]]))
    scene = scene.using(
        centre=[[0.5, 0]], scale=0.4, aspect=0, shear=0, warp=0, fill=1, ground=0, noise=0
    )
    image = render(scene, (40, 40), rng)[0]
    assert image[20, 30].tolist() == [255, 255, 255]
    assert image[20, 5].tolist() == [0, 0, 0]
    share = image.mean() / 255
    assert share == pytest.approx(np.pi * (0.9 * 0.4 * 20) ** 2 / 1600, rel=0.05)


@pytest.mark.parametrize("task", CLASSES)
def test_the_same_seed_draws_the_same_bytes(task: str) -> None:
    style = next(iter(broad.SHARES[task]))
    first, again, other = (
        broad.draw_style(np.random.default_rng(seed), task, style, 20) for seed in (1, 1, 2)
    )
    assert first.images.shape == (20, 32, 32, 3)
    assert first.images.dtype == np.uint8
    assert np.array_equal(first.images, again.images)
    assert first.captions == again.captions
    assert not np.array_equal(first.images, other.images)


def test_batches_are_drawn_as_their_parts() -> None:
    rng = np.random.default_rng(0)
    parts = [styles.sketch(rng, glyphs_of("imagenet")[:3]) for _ in range(2)]
    parts = [part.using(noise=0) for part in parts]
    together = render(concatenate(parts), (32, 32), rng)
    apart = np.concatenate([render(part, (32, 32), rng) for part in parts])
    assert np.array_equal(together, apart)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_grow_with_severity(name: str) -> None:
    rng = np.random.default_rng(3)
    clean = render(styles.photo(rng, glyphs_of("imagenet")), (32, 32), rng)

    def change(severity: int) -> float:
        changed = corrupt(clean, name, severity, np.random.default_rng(4))
        assert changed.shape == clean.shape
        assert changed.dtype == np.uint8
        return float(np.abs(changed.astype(float) - clean).mean())

    assert 1 < change(1) < change(5)
