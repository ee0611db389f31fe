"""A small data set that can be learned in seconds, and a small network to learn it."""

import dataclasses

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


def mapped(data: Data) -> Data:
    """The same data as it is served where images are mapped: all of them in one tensor, in another order."""
    splits = (data.train, data.validation, data.test)
    order = torch.randperm(sum(map(len, splits)), generator=torch.Generator().manual_seed(0))
    images = torch.cat([split.images for split in splits])[order]
    rows = torch.split(torch.argsort(order), [len(split) for split in splits])
    train, validation, test = (Split(images, split.labels, part) for split, part in zip(splits, rows, strict=True))
    return dataclasses.replace(data, train=train, validation=validation, test=test)


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
