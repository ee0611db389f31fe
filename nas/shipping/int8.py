"""The `onnx-int8` format: ONNX Runtime's static quantiser, with the layers that hurt left in float.

Weights are 8-bit with one scale a channel, rounded so that outputs change least (`nas.shipping.rounding`) and to the range of 7
bits, so that no processor's sums of products overflow; activations 8-bit with a scale from calibration images; in QDQ form,
which every execution provider reads. Where accuracy falls by more than may be lost, or the network says something else of more
images than it may, each layer is quantised alone to see how much of the outputs it spoils, and the fewest of the worst that
will do stay in float. Where that does not do, sums, concatenations and pools beside them stay in float too; and where
that does not do either, it is said of the model that it is not within the limits.
"""

import dataclasses
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.checkpoint import Checkpoint
from nas.data import Batches, Data, Split
from nas.deployment import onnx_model, runner
from nas.errors import ExportError
from nas.shipping.rounding import rounded
from searchspace.onnx_graph import INPUT

CALIBRATION_IMAGES = 256
CALIBRATION_BATCH = 32
SEARCH_IMAGES = 32  # calibrate and compare when layers are quantised one by one
WEIGHTED = ("Conv", "Gemm", "MatMul")
FUSED = ("Relu", "Clip")  # into the layer before
MAX_DROP = 0.01
MIN_AGREEMENT = 0.985  # some above 98 %, as it is met on some thousand images and asked of unseen ones

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Quantized:
    """An 8-bit model.

    Attributes:
        model: serialised ONNX in QDQ form.
        float_layers: names of the layers that stay in float because quantising them hurt.
        float_between: whether sums, concatenations and pools stay in float too, where the layers beside them do.
        agreement: share of validation images on which it says what the float model says.
        accuracy: on the validation split.
        float_accuracy: of the float model there.
        refusal: how it fails what was asked for, and what to ask for instead; None: it does not.
    """

    model: bytes
    float_layers: tuple[str, ...]
    float_between: bool
    agreement: float
    accuracy: float
    float_accuracy: float
    refusal: str | None = None


def quantize(
    checkpoint: Checkpoint,
    data: Data,
    *,
    batch: int | None = 1,
    max_drop: float = MAX_DROP,
    min_agreement: float = MIN_AGREEMENT,
    calibration_images: int = CALIBRATION_IMAGES,
    on_progress: Progress = lambda what, done, total: None,
) -> Quantized:
    """The 8-bit form of a checkpoint's network, calibrated on training images and judged on the validation split.

    Args:
        checkpoint: the network.
        data: what it was trained on, normalised alike.
        batch: images per run of the model; None leaves it open.
        max_drop: validation accuracy that may be lost, in [0, 1].
        min_agreement: share of validation images of which it must say what the float model says, in [0, 1].
        calibration_images: how many training images tell the ranges of activations.
        on_progress: told what goes on.

    Returns:
        The model with the fewest layers in float that is within both limits. If none is: the one with a single layer in 8 bits.

    Raises:
        ExportError: `max_drop` or `min_agreement` is not a share.
    """
    for what, value in (("the accuracy that may be lost", max_drop), ("the least agreement", min_agreement)):
        if not 0 <= value <= 1:
            raise ExportError(f"{what} must be in [0, 1], got {value}")
    split, plain = data.validation, onnx_model(checkpoint, batch=None)
    wanted, labels = said(plain, split, data), split.labels.numpy()
    float_accuracy = float(np.mean(wanted == labels))
    images = _calibration_images(data, calibration_images)
    on_progress("rounding weights", 0, None)
    weights = rounded(plain, _parts(images))

    def without(left_out: Sequence[str], between: bool = True) -> Quantized:
        on_progress(f"quantising but {len(left_out)} layers" if left_out else "quantising", 0, None)
        model = _static(plain, images, weights=weights, leave=left_out, between=between)
        answers = said(model, split, data)
        accuracy, agreement = (float(np.mean(answers == truth)) for truth in (labels, wanted))
        made = Quantized(model, tuple(left_out), not between, agreement, accuracy, float_accuracy)
        return dataclasses.replace(made, refusal=_refusal(made, max_drop=max_drop, min_agreement=min_agreement))

    made = without(())
    if made.refusal:
        ranking = _worst_first(plain, images[:SEARCH_IMAGES], weights, on_progress)
        made = _fewest(ranking, without)
        if made.refusal:
            made = _fewest(ranking, lambda left_out: without(left_out, between=False))
    return dataclasses.replace(made, model=_with_batch(made.model, batch))


def _refusal(made: Quantized, *, max_drop: float, min_agreement: float) -> str | None:
    """How a model fails what is asked for, and what to ask for instead; None if it does not."""
    lost = made.float_accuracy - made.accuracy
    instead = [
        f"{option} {value:g}"
        for option, value, failed in (
            ("--max-accuracy-drop", math.ceil(1000 * lost) / 1000, lost > max_drop + 1e-9),
            ("--min-agreement", math.floor(1000 * made.agreement) / 1000, made.agreement < min_agreement - 1e-9),
        )
        if failed
    ]
    if not instead:
        return None
    return (
        f"8 bits may cost {max_drop:.1%} of validation accuracy and must say what float32 says of {min_agreement:.1%} of the "
        f"images; with {len(made.float_layers)} layers in float they cost {lost:.1%} and agree on {made.agreement:.1%}: ask for "
        f"{' '.join(instead)}, or for --format onnx"
    )


def _fewest(ranking: Sequence[str], without: Callable[[Sequence[str]], Quantized]) -> Quantized:
    """The model with the fewest of the first layers of the ranking left out that is good; if none is, with all but the last."""
    most = len(ranking) - 1  # a model without any 8-bit layer is none
    bad, count = 0, min(1, most)
    made = without(ranking[:count])
    while made.refusal and count < most:
        bad, count = count, min(2 * count, most)
        made = without(ranking[:count])
    while not made.refusal and count - bad > 1:
        middle = (bad + count) // 2
        tried = without(ranking[:middle])
        if tried.refusal:
            bad = middle
        else:
            made, count = tried, middle
    return made


def _worst_first(
    model: bytes, images: Tensor, weights: Mapping[str, onnx.TensorProto], on_progress: Progress
) -> list[str]:
    """Layers, the one that changes the logits most when it alone is 8-bit first."""
    layers = [node.name for node in onnx.load_from_string(model).graph.node if node.op_type in WEIGHTED]
    wanted = runner(model)(images)
    harm: dict[str, float] = {}
    for index, layer in enumerate(layers):
        on_progress("looking for the layers that 8 bits hurt", index, len(layers))
        alone = runner(_static(model, images, weights=weights, only=layer))(images)
        harm[layer] = float(np.mean((alone - wanted) ** 2))
    return sorted(layers, key=lambda layer: -harm[layer])


def _static(
    model: bytes,
    images: Tensor,
    *,
    weights: Mapping[str, onnx.TensorProto],
    leave: Sequence[str] = (),
    only: str | None = None,
    between: bool = True,
) -> bytes:
    """ONNX Runtime's static quantisation of a model of any batch; rounded weights, by layer, take the place of its own.

    Args:
        model: float32, serialised.
        images: tell the ranges of activations.
        weights: the rounded ones.
        leave: layers that stay in float.
        only: the one layer that is quantised; None: all.
        between: whether sums, concatenations and pools are quantised beside layers in float, too.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    source = onnx.load_from_string(model)
    tensors = {tensor.name: tensor for tensor in source.graph.initializer}
    for layer, tensor in weights.items():
        if layer not in leave and only in (None, layer):
            tensors[tensor.name].CopyFrom(tensor)
    with tempfile.TemporaryDirectory(prefix="pocketnas-") as folder:
        path = Path(folder) / "int8.onnx"
        with _quietly():
            quantize_static(
                source,
                path,
                _Reader(images),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=None if only is None else [only],
                nodes_to_exclude=list(leave),
                op_types_to_quantize=None if between else [*WEIGHTED, *FUSED],
            )
        quantized = onnx.load_from_string(path.read_bytes())
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(onnx.load_from_string(model).metadata_props)
    serialized: bytes = quantized.SerializeToString()
    return serialized


def _with_batch(model: bytes, batch: int | None) -> bytes:
    """A model of any batch as one of so many images a run."""
    if batch is None:
        return model
    made = onnx.load_from_string(model)
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del made.graph.value_info[:]
    serialized: bytes = made.SerializeToString()
    return serialized


class _Reader:
    """Hands calibration images to the quantiser."""

    def __init__(self, images: Tensor) -> None:
        self.parts = iter(_parts(images))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next images, or None."""
        return next(self.parts, None)


def _parts(images: Tensor) -> list[dict[str, NDArray[np.float32]]]:
    """Images some at a time, as a model of any batch takes them."""
    return [{INPUT: np.ascontiguousarray(part.numpy())} for part in torch.split(images, CALIBRATION_BATCH)]


def _calibration_images(data: Data, count: int) -> Tensor:
    """Training images (N, C, H, W), normalised, drawn at random but always the same."""
    count = min(count, len(data.train))
    batches = Batches(split=data.train, data=data, batch_size=count, shuffle=True, seed=0, channels_last=False)
    return next(batches.epoch())[0]


def said(model: bytes, split: Split, data: Data) -> NDArray[np.int64]:
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
