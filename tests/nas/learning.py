"""A small data set that can be learned in seconds, and a small network to learn it."""

import torch

from nas.data import Data, Split
from searchspace.architecture import Architecture
from searchspace.blocks import UIB, ClassicHead, Conv, Fire

torch.set_num_threads(
    1
)  # what is trained here is too small to be shared: on busy cores two threads take many times longer

RESOLUTION, CLASSES = 8, ("left", "right", "top")


def shapes(images: int = 160, *, seed: int = 0) -> Data:
    """Grey noise with one bright half: which one is the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % len(CLASSES)
    pixels = torch.randint(0, 120, (images, 1, RESOLUTION, RESOLUTION), generator=generator, dtype=torch.uint8)
    half = RESOLUTION // 2
    pixels[labels == 0, :, :, :half] += 100
    pixels[labels == 1, :, :, half:] += 100
    pixels[labels == 2, :, :half, :] += 100
    first, second = images // 2, images * 3 // 4
    train, validation, test = (
        Split(pixels[part].clone(), labels[part].clone())
        for part in (slice(0, first), slice(first, second), slice(second, images))
    )
    return Data(
        name="shapes",
        kind="npz",
        fingerprint=f"shapes-{images}-{seed}",
        classes=CLASSES,
        resolution=RESOLUTION,
        channels=1,
        mean=(0.4,),
        std=(0.2,),
        train=train,
        validation=validation,
        test=test,
        class_counts=tuple(torch.bincount(train.labels).tolist()),
    )


def small(*, dropout: float = 0.0) -> Architecture:
    """Every kind of tensor that training meets: dense, pointwise and depthwise weights, normalisation, a linear layer."""
    return Architecture(
        (
            Conv(cout=8),
            UIB(cout=8, hidden=16, dw_start=3, dw_mid=3, residual=True),
            Fire(squeeze=4, expand1x1=8, expand3x3=8),
        ),
        ClassicHead(dropout=dropout),
        resolution=RESOLUTION,
        channels=1,
        classes=len(CLASSES),
    )
