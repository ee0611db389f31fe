"""Labelled images from `--data`: decoded once, divided by content, and served in whole batches."""

from nas.data.augmentation import Augmentation, default_augmentation
from nas.data.batches import Batches
from nas.data.dataset import Data, Split
from nas.data.loading import load_data

__all__ = ["Augmentation", "Batches", "Data", "Split", "default_augmentation", "load_data"]
