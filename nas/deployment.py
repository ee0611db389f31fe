"""Deployable files: an ONNX model that was run beside the checkpoint before it was written.

The graph takes normalised images; how to normalise them, what the outputs mean and how good the network is are written into the
model's metadata (`metadata_props`), all as JSON values:

======================== =================================================================================
key                      value
======================== =================================================================================
architecture             fingerprint, 16 hexadecimal digits
classes                  names in the order of the outputs; empty where not known
input                    layout, resolution_px, channels, mean, std: (pixel / 255 − mean) / std, per channel
data                     name and fingerprint of the data set it was trained on
metrics                  what is known: accuracy and loss on the validation split, `measured_ms` on `target`, …
======================== =================================================================================
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.checkpoint import Checkpoint, DataRecord
from nas.data import Batches, Data, Split
from nas.errors import ExportError
from searchspace.architecture import Architecture, lower
from searchspace.files import write_atomically
from searchspace.network import Network
from searchspace.onnx_graph import INPUT, check, fold, to_onnx

TOLERANCE = 1e-4
"""Largest difference between the logits of file and checkpoint, relative to the largest logit."""
CALIBRATION_IMAGES = 8


@dataclass(frozen=True)
class Export:
    """A file that was written, with the largest difference of its logits from the checkpoint's."""

    path: Path
    format: str
    bytes: int
    max_abs_diff: float


def export_onnx(checkpoint: Checkpoint, path: Path, *, images: Tensor, batch: int | None = 1) -> Export:
    """Write an ONNX model that does what the checkpoint does.

    Args:
        checkpoint: the network and its weights.
        path: where to.
        images: (N, C, H, W), normalised float32; both are run on them and compared before anything is written.
        batch: images per run of the model; None leaves it open.

    Raises:
        ExportError: the model does not give the checkpoint's logits; nothing was written.
        NasError: the file cannot be written.
    """
    model = onnx_model(checkpoint, batch=batch)
    difference = compare(model, checkpoint.network(), images)
    write_atomically(path, model)
    return Export(path, "onnx", len(model), difference)


def onnx_model(checkpoint: Checkpoint, *, batch: int | None = 1) -> bytes:
    """The checkpoint's network as a serialised ONNX model with metadata; it passed ONNX's checker."""
    lowered = lower(checkpoint.architecture)
    state = {name: tensor.numpy() for name, tensor in checkpoint.state.items()}
    model = onnx.load_from_string(to_onnx(lowered, fold(lowered, state), batch=batch))
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in describe(checkpoint).items()})
    serialized: bytes = model.SerializeToString()
    check(serialized)
    return serialized


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a user of the deployed file must know, as plain data."""
    architecture, data = checkpoint.architecture, checkpoint.data
    return {
        "architecture": architecture.fingerprint,
        "classes": list(checkpoint.classes),
        "input": {
            "layout": "NCHW",
            "resolution_px": architecture.resolution,
            "channels": architecture.channels,
            "mean": list(data.mean),
            "std": list(data.std),
        },
        "data": {"name": data.name, "fingerprint": data.fingerprint},
        "metrics": dict(checkpoint.metrics),
    }


def compare(model: bytes, network: Network, images: Tensor) -> float:
    """Run a model and a network on the same images; returns the largest difference of their logits.

    Raises:
        ExportError: it is more than `TOLERANCE` of the largest logit, or a logit is not a number.
    """
    return largest_difference(runner(model)(images), network, images)


def largest_difference(logits: NDArray[np.float32], network: Network, images: Tensor) -> float:
    """The largest difference of an exported network's logits of `images` from the network's own.

    Raises:
        ExportError: it is more than `TOLERANCE` of the largest logit, or a logit is not a number.
    """
    with torch.inference_mode():
        wanted = network.eval()(images).numpy()
    difference = float(np.abs(logits - wanted).max())
    scale = float(np.abs(wanted).max())
    if not difference <= TOLERANCE * scale:
        raise ExportError(
            f"the exported logits must be the checkpoint's within {TOLERANCE:g} of the largest, "
            f"got a difference of {difference:.3g} where the largest is {scale:.3g}; nothing was written"
        )
    return difference


def accuracy(model: bytes, split: Split, data: Data) -> float:
    """Share of a split that a model gets right; `data` says how the images are normalised."""
    return share_right(runner(model), split, data)


def share_right(run: Callable[[Tensor], NDArray[np.float32]], split: Split, data: Data) -> float:
    """Share of a split that a function from images to logits gets right."""
    batches = Batches(split=split, data=data, batch_size=256, shuffle=False)
    right = sum(int((run(images).argmax(1) == labels.numpy()).sum()) for images, labels in batches.epoch())
    return right / len(split)


def runner(model: bytes, *, source: str = INPUT) -> Callable[[Tensor], NDArray[np.float32]]:
    """A function from images (N, C, H, W) to logits (N, classes): ONNX Runtime, whatever batch the model is made for.

    Args:
        model: serialised, in ONNX's or ONNX Runtime's format.
        source: name of its input; images are given as the type they are.
    """
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    batch = session.get_inputs()[0].shape[0]

    def run(images: Tensor) -> NDArray[np.float32]:
        array = np.ascontiguousarray(images.numpy())
        step = batch if isinstance(batch, int) else len(array)
        parts = []
        for start in range(0, len(array), step):
            part = array[start : start + step]
            missing = np.zeros((step - len(part), *part.shape[1:]), part.dtype)
            parts.append(session.run(None, {source: np.concatenate([part, missing])})[0][: len(part)])
        return np.concatenate(parts)

    return run


def first_images(split: Split, data: Data, *, images: int = 16) -> Tensor:
    """The first images of a split, (N, C, H, W), normalised: something real to compare on."""
    batches = Batches(split=split, data=data, batch_size=images, shuffle=False, channels_last=False)
    return next(batches.epoch())[0]


def noise(architecture: Architecture, *, images: int, seed: int = 0) -> Tensor:
    """Images (N, C, H, W) of standard normal noise: what stands in where there are no real ones."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((images, *architecture.input_shape), generator=generator)


def random_checkpoint(architecture: Architecture, *, seed: int = 0) -> Checkpoint:
    """An untrained network: random weights, its running statistics taken from noise, so that activations keep their scale.

    (Otherwise those of a deep network shrink to denormal numbers, and it is measured as many times slower than it is.)
    """
    with torch.random.fork_rng([]), torch.no_grad():
        torch.manual_seed(seed)
        network = Network(architecture)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # plain mean of what is seen
        network.train()(noise(architecture, images=CALIBRATION_IMAGES, seed=seed))
    channels = architecture.channels
    data = DataRecord("none: random weights", "", (0.5,) * channels, (0.25,) * channels)
    return Checkpoint(architecture, network.state_dict(), (), data, metrics={"seed": seed})
