"""Recipes: how a network is trained, as one small YAML file.

Two are shipped: `brief`, which ranks candidates during a search, and `full`, for the network that is kept.
"""

import dataclasses
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from nas.errors import TrainingError
from searchspace.errors import NasError
from searchspace.files import parse_plain

Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["one_cycle", "cosine", "constant"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]

MAX_MAGNITUDE = 30
ANY = sys.float_info.max
LIMITS = (
    ("batch_size", 2, ANY),
    ("weight_decay", 0, ANY),
    ("crop_px", 0, ANY),
    ("rand_augment", 0, 14),
    ("magnitude", 0, MAX_MAGNITUDE),
    ("mixup", 0, ANY),
    ("cutmix", 0, ANY),
    ("early_stop", 1, ANY),
)
"""Least and highest values of some keys."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Attributes:
        epochs: length, as passes through the training split; may be a fraction. Either this or `images` is given.
        images: length, as a number of images; the search compares candidates at equal length, whatever the data set.
        batch_size: images per step, at least 2 (batch normalisation needs them).
        optimizer: `sgd` (with Nesterov's momentum) or `adamw`.
        lr: highest learning rate.
        momentum: of SGD; AdamW's first beta. In [0, 1).
        weight_decay: on the weights of convolutions and linear layers; never on biases and normalisations.
        schedule: `one_cycle` rises and falls along cosines, `cosine` rises linearly and falls along one, `constant` rises
            linearly and stays.
        warm_up: share of the length in which the learning rate rises; in [0, 1).
        label_smoothing: share of the target spread over all classes; in [0, 1).
        ema_decay: per step; weights are averaged with it and the average is what is judged and kept. None: no average.
        dropout: in place of the architecture's; in [0, 1). None: the architecture's.
        crop_px: how far training images are moved at most; 0 leaves them. None: an eighth of the resolution.
        flip: whether they are mirrored. None: if the data is not of characters.
        rand_augment: RandAugment's number of changes (of 14) to each training image; 0 for none.
        magnitude: how strong they are, 0 to 30.
        mixup: parameter of the Beta distribution that images (and labels) are blended with; 0 for none. Where `cutmix` is given
            too, every step draws one of both.
        cutmix: the same for the size of the rectangle that is pasted from another image.
        drop_path: share of training images for which the last residual block is skipped, rising to it from the first block on
            (stochastic depth); in [0, 1).
        balance: classes count alike in the loss, however many images each has.
        early_stop: training ends after so many epochs without a better accuracy. None: never. A learning rate that is still to
            fall hides what is to come, so it goes best with `schedule: constant`.
        clip_norm: gradients are scaled down to this norm. None: never.
        precision: `auto` is bf16 (fp16 where that is lacking) on CUDA and fp32 elsewhere, where it is faster.
        channels_last: memory layout of images and weights. None: channels last; commands try both and take the faster one (see
            `nas.threads`).
        compile: whether forward and backward are compiled by torch (a minute at the start, then faster on most cards).

    Raises:
        TrainingError: a value is out of range, or not exactly one of `epochs` and `images` is given.
    """

    epochs: float | None = None
    images: int | None = None
    batch_size: int = 32
    optimizer: Optimizer = "sgd"
    lr: float = 0.07
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = "one_cycle"
    warm_up: float = 0.25
    label_smoothing: float = 0.0
    ema_decay: float | None = None
    dropout: float | None = None
    crop_px: int | None = None
    flip: bool | None = None
    rand_augment: int = 0
    magnitude: float = 9.0
    mixup: float = 0.0
    cutmix: float = 0.0
    drop_path: float = 0.0
    balance: bool = False
    early_stop: int | None = None
    clip_norm: float | None = None
    precision: Precision = "auto"
    channels_last: bool | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(Recipe).items():
            _check_type(name, getattr(self, name), hint)
        if (self.epochs is None) == (self.images is None):
            raise TrainingError(
                f"recipe: either epochs or images must be given, got epochs={self.epochs} and images={self.images}"
            )
        for name in ("epochs", "images", "lr", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise TrainingError(f"recipe: {name} must be a finite number above 0, got {value}")
        for name in ("momentum", "warm_up", "label_smoothing", "ema_decay", "dropout", "drop_path"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise TrainingError(f"recipe: {name} must be in [0, 1), got {value}")
        for name, least, most in LIMITS:
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                limit = f"at least {least}" if most == ANY else f"from {least} to {most:g}"
                raise TrainingError(f"recipe: {name} must be {limit}, got {value}")

    def length(self, split_images: int) -> int:
        """Images to train on, given how many the split has: whole batches, at least one."""
        batch = self.batch(split_images)
        wanted = self.images if self.images is not None else round((self.epochs or 0) * split_images)
        return max(1, wanted // batch) * batch

    def batch(self, split_images: int) -> int:
        """Images per step: the batch size, or the split if that is smaller."""
        return min(self.batch_size, split_images)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `Recipe.from_dict` makes the same recipe of it."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "Recipe":
        """Recipe from plain data.

        Raises:
            TrainingError: a key is unknown, or a value out of range.
        """
        known = [field.name for field in dataclasses.fields(Recipe)]
        for key in data:
            if key not in known:
                raise TrainingError(f"recipe: unknown key {key!r}; known are {', '.join(known)}")
        return Recipe(**data)


def shipped_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    files = resources.files("nas").joinpath("recipes").iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


def load_recipe(source: str) -> Recipe:
    """A shipped recipe by its name, or one from a YAML or JSON file.

    Raises:
        TrainingError: there is none of that name, or the file does not hold a recipe.
    """
    if source in shipped_recipes():
        text = resources.files("nas").joinpath("recipes", f"{source}.yaml").read_text(encoding="utf-8")
    else:
        text = _read(Path(source))
    try:
        data = parse_plain(text)
        if not isinstance(data, dict):
            raise TrainingError(f"a recipe must be one mapping, got {type(data).__name__}")
        return Recipe.from_dict(data)
    except NasError as error:
        raise TrainingError(f"{source}: {error}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TrainingError(f"{path}: a recipe must be text in UTF-8, got other bytes") from error
    except OSError as error:
        raise TrainingError(
            f"{path}: a recipe must be a readable file or one of {', '.join(shipped_recipes())}, got: {error.strerror}"
        ) from error


def _check_type(name: str, value: object, hint: Any) -> None:
    """Refuse a value of another type than annotated; whole numbers pass as floating-point ones, booleans as neither."""
    allowed = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    for kind in allowed:
        if get_origin(kind) is Literal:
            if value in get_args(kind):
                return
            raise TrainingError(f"recipe: {name} must be one of {', '.join(get_args(kind))}, got {value!r}")
        if isinstance(value, bool) and kind is not bool:
            continue
        if isinstance(value, (int, float) if kind is float else kind):
            return
    names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in allowed)
    raise TrainingError(f"recipe: {name} must be {names}, got {value!r}")
