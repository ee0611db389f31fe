"""RandAugment changes each image by itself, and as Pillow does; mixing blends images and tells their shares."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from nas.data.augmentation import Augmentation, source_pixels
from nas.data.mixing import Mixing, before
from nas.data.rand_augment import CHANGES, STRONGEST, TONAL, draw_changes, toned
from nas.errors import DataError

STRENGTH = 0.6
UP = 1 + 0.9 * STRENGTH
PILLOW: dict[str, Callable[[Image.Image], Image.Image]] = {
    "auto_contrast": ImageOps.autocontrast,
    "equalize": ImageOps.equalize,
    "solarize": lambda image: ImageOps.solarize(image, round(255 * (1 - STRENGTH))),
    "posterize": lambda image: ImageOps.posterize(image, 8 - round(4 * STRENGTH)),
    "colour": lambda image: ImageEnhance.Color(image).enhance(UP),
    "contrast": lambda image: ImageEnhance.Contrast(image).enhance(UP),
    "brightness": lambda image: ImageEnhance.Brightness(image).enhance(UP),
    "sharpness": lambda image: ImageEnhance.Sharpness(image).enhance(UP),
}


def pictures(count: int = 4, *, size: int = 16) -> Tensor:
    """Uint8, (count, size, size, 3), smooth and of little contrast, as Pillow's changes would be lost in noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 8, generator=generator) * 120 + 60
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return smooth.permute(0, 2, 3, 1).to(torch.uint8).contiguous()


@pytest.mark.parametrize("name", TONAL)
def test_changes_of_tone_are_pillows(name: str) -> None:
    images = pictures()
    drawn = torch.tensor([[CHANGES.index(name), 0]] * len(images))
    ours = toned(images.clone(), drawn, magnitude=STRENGTH * STRONGEST).numpy().astype(int)
    theirs = np.stack([np.asarray(PILLOW[name](Image.fromarray(image))) for image in images.numpy()]).astype(int)
    assert np.abs(ours - theirs).max() <= 2
    assert np.abs(ours - images.numpy()).max() > 1, "nothing was changed"


def test_an_image_is_changed_alike_in_whatever_batch() -> None:
    images = pictures(40)
    drawn = draw_changes(40, 3, torch.Generator().manual_seed(1))
    together = toned(images.clone(), drawn, magnitude=12)
    alone = torch.cat([toned(images[i : i + 1].clone(), drawn[i : i + 1], magnitude=12) for i in range(40)])
    assert torch.equal(together, alone)
    assert not torch.equal(together, images)


@pytest.mark.parametrize(
    ("name", "sign", "moved"),
    [("translate_x", 0, (0, 4)), ("translate_x", 1, (0, -4)), ("translate_y", 0, (4, 0)), ("identity", 0, (0, 0))],
)
def test_translations_move_by_a_share_of_the_side(name: str, sign: int, moved: tuple[int, int]) -> None:
    drawn = torch.tensor([[0, 0, 0, CHANGES.index(name), sign]])
    pixels = source_pixels(drawn, 18, magnitude=STRONGEST * 4 / (0.45 * 18))[0]
    rows, columns = pixels // 18, pixels % 18
    assert (int(rows[9, 9]), int(columns[9, 9])) == (9 + moved[0], 9 + moved[1])


def test_a_rotation_keeps_the_middle_and_turns_the_rest() -> None:
    drawn = torch.tensor([[0, 0, 0, CHANGES.index("rotate"), 0]])
    pixels = source_pixels(drawn, 9, magnitude=STRONGEST)[0]
    assert int(pixels[4, 4]) == 4 * 9 + 4
    row, column = int(pixels[4, 8]) // 9, int(pixels[4, 8]) % 9  # 4 to the right, turned by 30°
    assert (abs(row - 4), column) == (2, 7)


def test_every_change_stays_within_the_image() -> None:
    augmentation = Augmentation(crop_px=4, changes=3, magnitude=STRONGEST)
    drawn = augmentation.draw(300, 16, torch.Generator().manual_seed(0))
    pixels = source_pixels(drawn, 16, magnitude=STRONGEST)
    assert 0 <= int(pixels.min()) <= int(pixels.max()) < 256


@pytest.mark.parametrize("mixing", [Mixing(mixup=0.5), Mixing(cutmix=1.0), Mixing(mixup=0.5, cutmix=1.0)])
def test_mixed_images_hold_their_shares(mixing: Mixing) -> None:
    ones = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 12, 12).contiguous()
    shares = set()
    for seed in range(20):
        mixed, share = mixing.apply(ones, seed=seed)
        again, _ = mixing.apply(ones, seed=seed)
        assert torch.equal(mixed, again)
        expected = share * ones + (1 - share) * before(ones)
        torch.testing.assert_close(mixed.mean((1, 2, 3)), expected.mean((1, 2, 3)), atol=1e-4, rtol=0)
        shares.add(share)
    assert len(shares) > 10
    assert torch.equal(ones[:, 0, 0, 0], torch.arange(6.0)), "what came in was changed"


def test_negative_mixing_is_refused() -> None:
    with pytest.raises(DataError, match="mixup must be at least 0"):
        Mixing(mixup=-1)
