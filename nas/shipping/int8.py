"""The `onnx-int8` format: ONNX Runtime's static quantiser, with the layers that hurt left in float.

Weights are 8-bit with one scale a channel, activations 8-bit with a scale from calibration images, in QDQ form, which every
execution provider reads. Where accuracy falls by more than may be lost, each layer is quantised alone to see how much of the
outputs it spoils, and the worst are kept in float, twice as many in each round, until accuracy holds.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import Tensor

from nas.checkpoint import Checkpoint
from nas.data import Batches, Data, Split
from nas.deployment import onnx_model, runner
from nas.errors import ExportError
from searchspace.onnx_graph import INPUT

CALIBRATION_IMAGES = 256
CALIBRATION_BATCH = 32
SEARCH_IMAGES = 32  # calibrate and compare when layers are quantised one by one
WEIGHTED = ("Conv", "Gemm", "MatMul")
MAX_DROP = 0.01


@dataclass(frozen=True)
class Quantized:
    """An 8-bit model.

    Attributes:
        model: serialised ONNX in QDQ form.
        float_layers: names of the layers that stay in float because quantising them hurt.
        agreement: share of validation images on which it says what the float model says.
        accuracy: on the validation split.
        float_accuracy: of the float model there.
    """

    model: bytes
    float_layers: tuple[str, ...]
    agreement: float
    accuracy: float
    float_accuracy: float


def quantize(
    checkpoint: Checkpoint,
    data: Data,
    *,
    batch: int | None = 1,
    max_drop: float = MAX_DROP,
    calibration_images: int = CALIBRATION_IMAGES,
    on_progress: Callable[[str, int, int | None], None] = lambda what, done, total: None,
) -> Quantized:
    """The 8-bit form of a checkpoint's network, calibrated on training images and judged on the validation split.

    Args:
        checkpoint: the network.
        data: what it was trained on, normalised alike.
        batch: images per run of the model; None leaves it open.
        max_drop: validation accuracy that may be lost, in [0, 1].
        calibration_images: how many training images tell the ranges of activations.
        on_progress: told what goes on.

    Raises:
        ExportError: `max_drop` is not a share.
    """
    if not 0 <= max_drop <= 1:
        raise ExportError(f"the accuracy that may be lost must be in [0, 1], got {max_drop}")
    split = data.validation
    wanted = _said(onnx_model(checkpoint, batch=None), split, data)
    labels = split.labels.numpy()
    float_accuracy = float(np.mean(wanted == labels))
    plain = onnx_model(checkpoint, batch=batch)
    images = _calibration_images(data, calibration_images)
    ranking: list[str] | None = None
    kept = 0
    while True:
        left_out = () if ranking is None else tuple(ranking[:kept])
        on_progress("quantising" if not kept else f"quantising but {kept} layers", kept, None)
        model = _static(plain, images, leave=left_out)
        said = _said(model, split, data)
        accuracy = float(np.mean(said == labels))
        if float_accuracy - accuracy <= max_drop + 1e-9 or (ranking is not None and kept >= len(ranking)):
            return Quantized(model, left_out, float(np.mean(said == wanted)), accuracy, float_accuracy)
        if ranking is None:
            ranking = _worst_first(plain, images[:SEARCH_IMAGES], on_progress)
        kept = max(1, min(2 * kept, len(ranking)))


def _worst_first(model: bytes, images: Tensor, on_progress: Callable[[str, int, int | None], None]) -> list[str]:
    """Layers, the one that changes the logits most when it alone is 8-bit first."""
    layers = [node.name for node in onnx.load_from_string(model).graph.node if node.op_type in WEIGHTED]
    wanted = runner(model)(images)
    harm: dict[str, float] = {}
    for index, layer in enumerate(layers):
        on_progress("looking for the layers that 8 bits hurt", index, len(layers))
        alone = runner(_static(model, images, only=layer))(images)
        harm[layer] = float(np.mean((alone - wanted) ** 2))
    return sorted(layers, key=lambda layer: -harm[layer])


def _static(model: bytes, images: Tensor, *, leave: Sequence[str] = (), only: str | None = None) -> bytes:
    """ONNX Runtime's static quantisation of a model."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    props = onnx.load_from_string(model).metadata_props
    with tempfile.TemporaryDirectory(prefix="pocketnas-") as folder:
        path = Path(folder) / "int8.onnx"
        with _quietly():
            quantize_static(
                onnx.load_from_string(model),
                path,
                _Reader(model, images),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=None if only is None else [only],
                nodes_to_exclude=list(leave),
            )
        quantized = onnx.load_from_string(path.read_bytes())
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(props)
    serialized: bytes = quantized.SerializeToString()
    return serialized


class _Reader:
    """Hands calibration images to the quantiser, in as many at a time as the model takes."""

    def __init__(self, model: bytes, images: Tensor) -> None:
        first = onnx.load_from_string(model).graph.input[0].type.tensor_type.shape.dim[0]
        step = first.dim_value or CALIBRATION_BATCH
        whole = len(images) - len(images) % step or len(images)
        arrays = images.numpy()
        self.parts: Iterator[NDArray[np.float32]] = iter(
            [_filled(arrays[start : start + step], step) for start in range(0, whole, step)]
        )

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next images, or None."""
        part = next(self.parts, None)
        return None if part is None else {INPUT: part}


def _filled(part: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """As many images as a run takes; too few are repeated."""
    return np.ascontiguousarray(np.resize(part, (step, *part.shape[1:])) if len(part) < step else part)


def _calibration_images(data: Data, count: int) -> Tensor:
    """Training images (N, C, H, W), normalised, drawn at random but always the same."""
    count = min(count, len(data.train))
    batches = Batches(split=data.train, data=data, batch_size=count, shuffle=True, seed=0, channels_last=False)
    return next(batches.epoch())[0]


def _said(model: bytes, split: Split, data: Data) -> NDArray[np.int64]:
    """The likeliest class of every image of a split."""
    run = runner(model)
    batches = Batches(split=split, data=data, batch_size=256, shuffle=False)
    return np.concatenate([run(images).argmax(1) for images, _ in batches.epoch()])


@contextmanager
def _quietly() -> Iterator[None]:
    """Keeps the quantiser's advice (it asks for a pre-processing that our graphs do not need) off the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
