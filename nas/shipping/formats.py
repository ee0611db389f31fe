"""Exporting: from a checkpoint to a file in any format, run beside the checkpoint, measured if wanted, and only then written."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from latency.settings import Effort
from latency.target import Target
from nas.checkpoint import Checkpoint
from nas.data import Data
from nas.data.pixels import decode
from nas.deployment import (
    accuracy,
    compare,
    first_images,
    largest_difference,
    noise,
    onnx_model,
    runner,
    share_right,
)
from nas.errors import ExportError
from nas.shipping import int8, ort, phone, standalone
from nas.shipping.place import check_place
from nas.shipping.preprocessing import PIXELS, with_preprocessing
from searchspace.files import write_folder, write_together
from searchspace.onnx_graph import check

SUFFIXES = {
    "onnx": ".onnx",
    "onnx-int8": "-int8.onnx",
    "ort": ".ort",
    "torch": "-torch",
    "pte": ".pte",
    "tflite": ".tflite",
}
FORMATS = tuple(SUFFIXES)
ONNX = ("onnx", "onnx-int8", "ort")  # what ONNX Runtime runs
COMPARED = 16  # images
TIPPED = 0.1
ALIKE = 0.5  # of whole images, below which cropping or resizing is wrong rather than rounded otherwise
EFFORT = Effort(processes=2, slices=8, limit_s=10.0)

Logits = NDArray[np.float32]
Progress = Callable[[str, int, int | None], None]
Report = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be written.

    Attributes:
        format: one of `FORMATS`.
        batch: images per run of the file; None leaves it open (ONNX formats).
        preprocessing: cutting out, resizing and normalising belong to the file (ONNX formats).
        max_drop: validation accuracy that 8 bits may cost, in [0, 1].
        min_agreement: share of validation images of which 8 bits must say what float32 says, in [0, 1].
        calibration_images: training images that tell the ranges of 8-bit activations.
        measured_on: device whose milliseconds are told (ONNX formats).

    Raises:
        ExportError: the format is unknown, or does not go with the rest.
    """

    format: str
    batch: int | None = 1
    preprocessing: bool = False
    max_drop: float = int8.MAX_DROP
    min_agreement: float = int8.MIN_AGREEMENT
    calibration_images: int = int8.CALIBRATION_IMAGES
    measured_on: Target | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ExportError(f"--format must be one of {', '.join(FORMATS)}, got {self.format!r}")
        if self.format not in ONNX:
            for wanted, option in (
                (self.batch != 1, "another batch than 1"),
                (self.preprocessing, "preprocessing"),
                (self.measured_on is not None, "measuring"),
            ):
                if wanted:
                    raise ExportError(f"{option} goes with {', '.join(ONNX)} only, got --format {self.format}")

    def require_images(self, *, given: bool) -> None:
        """Refuse what cannot be done without images, before anything takes time.

        Raises:
            ExportError: none are given, and 8 bits are asked for.
        """
        if self.format == "onnx-int8" and not given:
            raise ExportError("8 bits are calibrated on training images: give --data")


@dataclass(frozen=True)
class _Made:
    """A file's content, before it is written."""

    files: Mapping[
        str, bytes
    ]  # of a folder, by name; else "" is the file itself, and others by what is added to its name
    difference: float
    extra: Report = field(default_factory=dict)


def export(
    checkpoint: Checkpoint,
    path: Path,
    wish: Wish,
    *,
    data: Data | None = None,
    whole: Sequence[NDArray[np.uint8]] = (),
    seed: int = 0,
    on_progress: Progress = lambda what, done, total: None,
) -> Report:
    """Write a deployable file that does what the checkpoint does.

    Args:
        checkpoint: the network and its weights.
        path: where to.
        wish: what is to be written.
        data: images, normalised as in the training: the file is compared and judged on their test split, and 8 bits are
            calibrated on their training split. None: it is compared on noise.
        whole: images of the test split at their own size, (H, W, channels): a file with preprocessing is tried on them.
        seed: of the noise.
        on_progress: told what goes on.

    Returns:
        ``path, format, bytes, max_abs_diff, accuracy`` and what else there is to say of this format.

    Raises:
        ExportError: the file does not do what the checkpoint does, or an extra is missing; nothing was written.
        NasError: the file cannot be written.
        LatencyError: the device cannot measure it.
    """
    wish.require_images(given=data is not None)
    folder = wish.format == "torch"
    check_place(path, folder=folder)
    if data is None:
        images = noise(checkpoint.architecture, images=COMPARED, seed=seed)
    else:
        images = first_images(data.test, data, images=COMPARED)
    on_progress(f"making {wish.format}", 0, None)
    if wish.format in ONNX:
        made = _onnx(checkpoint, wish, images, data, whole=whole, on_progress=on_progress)
    elif wish.format == "torch":
        made = _torch(checkpoint, images, data)
    else:
        made = _phone(checkpoint, wish.format, images, data)
    if folder:
        write_folder(path, made.files)
    else:
        write_together({_named(path, name): content for name, content in made.files.items()})
    told, split = checkpoint.judged or (None, None)
    return {
        "path": str(path),
        "format": wish.format,
        "bytes": sum(len(content) for name, content in made.files.items() if name != ort.CONFIG),
        "max_abs_diff": made.difference,
        "accuracy": told,
        "accuracy_split": split,
        "compared_on": "random images" if data is None else f"{len(images)} images of {data.name}'s test split",
        "preprocessing": wish.preprocessing,
        **made.extra,
    }


def _onnx(
    checkpoint: Checkpoint,
    wish: Wish,
    images: Tensor,
    data: Data | None,
    *,
    whole: Sequence[NDArray[np.uint8]],
    on_progress: Progress,
) -> _Made:
    """An ONNX model, in 8 bits or in ONNX Runtime's own format if wanted."""
    network = checkpoint.network()
    plain = model = onnx_model(checkpoint, batch=wish.batch)
    difference = compare(model, network, images)
    extra: Report = {}
    if wish.format == "onnx-int8":
        assert data is not None  # it was required
        made = int8.quantize(
            checkpoint,
            data,
            batch=wish.batch,
            max_drop=wish.max_drop,
            min_agreement=wish.min_agreement,
            calibration_images=wish.calibration_images,
            on_progress=on_progress,
        )
        if made.refusal:
            raise ExportError(f"{made.refusal}; nothing was written")
        model = made.model
        difference = _finite_difference(model, plain, images)
        extra |= {
            "float_layers": list(made.float_layers),
            "float_between": made.float_between,
            "agreement": made.agreement,
            "validation_accuracy": made.accuracy,
            "float_validation_accuracy": made.float_accuracy,
        }
    if data is not None:
        on_progress("judging the file", 0, None)
        extra |= _judged(runner(model), data)
        if wish.format == "onnx-int8":
            extra["float_accuracy"] = accuracy(plain, data.test, data)
    if wish.measured_on is not None:
        extra["latency"] = _latency(wish.measured_on, model, plain, on_progress)
    core = model
    if wish.preprocessing:
        model = with_preprocessing(model, checkpoint)
        if wish.format == "onnx-int8":
            _check_pixels(model, core, checkpoint)
    model = _noted(model, {key: extra[key] for key in ("accuracy", "latency") if key in extra})
    check(model)
    files = {"": model}
    if wish.format == "ort":
        model, operators = ort.to_ort(model)
        files = {"": model, ort.CONFIG: operators.encode()}
        difference = _pixel_difference(model, checkpoint) if wish.preprocessing else compare(model, network, images)
    elif wish.preprocessing and wish.format == "onnx":
        difference = max(difference, _pixel_difference(model, checkpoint))
    if wish.preprocessing and whole:
        extra["whole_images"] = _try_whole(model, core, checkpoint, whole)
    return _Made(files, difference, extra)


def _torch(checkpoint: Checkpoint, images: Tensor, data: Data | None) -> _Made:
    source, weights = standalone.model_source(checkpoint), standalone.weights(checkpoint)
    difference = largest_difference(standalone.run(source, weights, images), checkpoint.network(), images)
    files = {standalone.MODEL: source.encode(), standalone.WEIGHTS: weights}
    return _Made(files, difference, _judged(lambda images: standalone.run(source, weights, images), data))


def _phone(checkpoint: Checkpoint, name: str, images: Tensor, data: Data | None) -> _Made:
    """A file for another runtime than ONNX's."""
    write, run = phone.WRITERS[name]
    content = write(checkpoint)
    difference = largest_difference(run(content, images), checkpoint.network(), images)
    return _Made({"": content}, difference, _judged(lambda images: run(content, images), data))


def _judged(run: Callable[[Tensor], Logits], data: Data | None) -> Report:
    """Accuracy on the test split, if there is one."""
    return {} if data is None else {"accuracy": share_right(run, data.test, data), "accuracy_split": "test"}


def _latency(target: Target, model: bytes, plain: bytes, on_progress: Progress) -> Report:
    """Milliseconds of a model on a device, without preprocessing; of an 8-bit one beside the float one, interleaved."""
    on_progress(f"measuring on {target.name}", 0, None)
    models = [model] if model is plain else [model, plain]
    timing, *others = target.open().measure(models, settings=target.settings, effort=EFFORT)
    float_ms = others[0].low_ms if others else None
    stable = all(one.stable for one in (timing, *others))
    return {"target": target.name, "ms": timing.low_ms, "stable": stable, "float_ms": float_ms}


def _finite_difference(model: bytes, plain: bytes, images: Tensor) -> float:
    """The largest difference of an 8-bit model's logits from the float model's.

    Raises:
        ExportError: a logit is not a number.
    """
    difference = float(np.abs(runner(model)(images) - runner(plain)(images)).max())
    if not np.isfinite(difference):
        raise ExportError("the 8-bit model's logits must be numbers, some are not; nothing was written")
    return difference


def _pixel_difference(model: bytes, checkpoint: Checkpoint) -> float:
    """The largest difference of logits from the checkpoint's, from pixels of the network's own size on."""
    pixels, images = _pixels(checkpoint)
    return largest_difference(runner(model, source=PIXELS)(pixels), checkpoint.network(), images)


def _check_pixels(model: bytes, core: bytes, checkpoint: Checkpoint) -> None:
    """Compare an 8-bit model from pixels on with what it is made of; rounding may tip a value to the next of 256 levels.

    Raises:
        ExportError: they differ by more than that explains.
    """
    pixels, images = _pixels(checkpoint)
    wanted = runner(core)(images)
    difference, scale = np.abs(runner(model, source=PIXELS)(pixels) - wanted).max(), np.abs(wanted).max()
    if not difference <= TIPPED * scale:
        raise ExportError(
            f"from pixels on the 8-bit logits must be those of normalised images within {TIPPED:.0%} of the largest, got a "
            f"difference of {difference:.3g} where the largest is {scale:.3g}; nothing was written"
        )


def _try_whole(model: bytes, core: bytes, checkpoint: Checkpoint, whole: Sequence[NDArray[np.uint8]]) -> Report:
    """On how many images of any size a model from pixels on says what it is made of says of them, cut out and resized for it.

    Raises:
        ExportError: on fewer than half.
    """
    architecture = checkpoint.architecture
    run = runner(model, source=PIXELS)
    said = [int(run(torch.from_numpy(pixels[None].copy())).argmax()) for pixels in whole]
    resized = [decode(pixels, resolution=architecture.resolution, channels=architecture.channels) for pixels in whole]
    images = _normalised(torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2), checkpoint)
    agreement = float(np.mean(runner(core)(images).argmax(1) == said))
    if agreement < ALIKE:
        raise ExportError(
            f"cropping and resizing by itself the file must say what it says of resized images of at least {ALIKE:.0%}, got "
            f"{agreement:.0%} of {len(whole)} test images; nothing was written"
        )
    return {"images": len(whole), "agreement": agreement}


def _pixels(checkpoint: Checkpoint) -> tuple[Tensor, Tensor]:
    """Random pixels, uint8 (N, H, W, C), of the network's own size, and the same normalised (N, C, H, W)."""
    architecture = checkpoint.architecture
    size = (COMPARED, architecture.channels, architecture.resolution, architecture.resolution)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8))
    return pixels.permute(0, 2, 3, 1), _normalised(pixels, checkpoint)


def _normalised(pixels: Tensor, checkpoint: Checkpoint) -> Tensor:
    """Pixels, uint8 (N, C, H, W), as the network takes them."""
    mean, std = (torch.tensor(value).view(1, -1, 1, 1) for value in (checkpoint.data.mean, checkpoint.data.std))
    return (pixels.float() / 255 - mean) / std


def _noted(model: bytes, facts: Mapping[str, Any]) -> bytes:
    """The model with more metadata."""
    loaded = onnx.load_from_string(model)
    for key, value in facts.items():
        loaded.metadata_props.add(key=key, value=json.dumps(value))
    serialized: bytes = loaded.SerializeToString()
    return serialized


def _named(path: Path, addition: str) -> Path:
    return ort.config_path(path) if addition == ort.CONFIG else path
