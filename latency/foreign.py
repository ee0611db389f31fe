"""ONNX models of other hands, made complete for a device: weights from beside the file inside, every input of a fixed size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import ModelProto, ValueInfoProto, external_data_helper
from onnx.checker import ValidationError

from latency.errors import LatencyError

MOST_BYTES = 2**31 - 1  # that one ONNX file without further files can have
IMAGE, IMAGE_CHANNELS_LAST = ("batch", "channels", "height", "width"), ("batch", "height", "width", "channels")
CHANNELS = (1, 3, 4)  # of an image that keeps them last
OPTIONS = {"height": "--resolution", "width": "--resolution", "channels": "--channels"}


@dataclass(frozen=True)
class ForeignModel:
    """A model that can be sent to a device as it is.

    Attributes:
        model: the serialised ONNX model.
        quantized: whether any of its nodes computes with integers of 8 bits, or makes them.
        batch: images that it takes at a time.
        remarks: what was asked for and does not apply to it, in words.
    """

    model: bytes
    quantized: bool
    batch: int = 1
    remarks: tuple[str, ...] = ()


def read_foreign(path: Path, *, resolution: int | None = None, channels: int | None = None) -> ForeignModel:
    """The ONNX model in a file, with the weights that lie beside it, and with sizes in place of open dimensions.

    Inputs of four axes are images, (N, C, H, W), or (N, H, W, C) where only the last axis can be channels. An open first axis is
    a batch, of 1; all other sizes that the file leaves open must be given.

    Args:
        path: of the file.
        resolution: height and width in pixels, where they are open.
        channels: of images, where they are open.

    Raises:
        LatencyError: it cannot be read, has more than 2 GiB, or leaves another dimension open; the message names it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LatencyError(f"{path}: an ONNX model is needed, it cannot be read ({error.strerror})") from None
    try:
        model = onnx.load_model_from_string(content)
    except Exception:  # whatever the parser has against it
        model = ModelProto()
    if not model.graph.node:
        raise LatencyError(f"{path}: an ONNX model is needed, got something else") from None
    inlined = _inline(model, path, content)
    closed, remarks = _close(model, path, resolution=resolution, channels=channels)
    batch = max((one.type.tensor_type.shape.dim[0].dim_value for one in _images(model)), default=1)
    if inlined or closed:
        content = _serialised(model, path)
    if batch > 1:
        remarks = (*remarks, f"{path}: its batch is fixed, milliseconds are of {batch} images at a time")
    quantized = any(_of_8_bits(node.op_type) for node in model.graph.node)
    return ForeignModel(content, quantized, batch, remarks)


def _inline(model: ModelProto, path: Path, content: bytes) -> bool:
    """Brings weights from other files in; returns whether there may have been any."""
    if b"location" not in content:  # the key that says where
        return False
    outside = [one for one in model.graph.initializer if external_data_helper.uses_external_data(one)]
    try:
        lengths = [int(entry.value) for one in outside for entry in one.external_data if entry.key == "length"]
        if len(content) + sum(lengths) <= MOST_BYTES:
            external_data_helper.load_external_data_for_model(model, str(path.parent))
            return True
    except (OSError, ValueError, RuntimeError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise LatencyError(f"{path}: its weights lie in files beside it, which cannot be read ({reason})") from None
    raise _too_large(path)


def _serialised(model: ModelProto, path: Path) -> bytes:
    try:
        return bytes(model.SerializeToString())
    except Exception:  # the library has several for this one reason
        raise _too_large(path) from None


def _too_large(path: Path) -> LatencyError:
    return LatencyError(f"{path}: a model to measure may have at most 2 GiB with its weights, this one has more")


def _close(
    model: ModelProto, path: Path, *, resolution: int | None, channels: int | None
) -> tuple[bool, tuple[str, ...]]:
    """Puts sizes in place of open dimensions; returns whether there were any, and what was asked for in vain."""
    sizes = {"batch": 1, "height": resolution, "width": resolution, "channels": channels}
    named: dict[str, int] = {}
    left: list[str] = []
    remedies: list[str] = []
    remarks: dict[str, str] = {}
    closed = False
    for value in _inputs(model):
        if not value.type.tensor_type.HasField("shape"):
            left.append(f"the shape of input {value.name!r}")
            continue
        roles = _roles(value)
        for role, dim in zip(roles, value.type.tensor_type.shape.dim, strict=True):
            wanted = sizes.get(role)
            if dim.dim_value > 0:
                if role in OPTIONS and wanted not in (None, dim.dim_value):
                    option = OPTIONS[role]
                    remarks.setdefault(
                        option, f"{path}: {role} of its input is {dim.dim_value}, {option} does not apply"
                    )
            elif wanted is None:
                left.append(f"{role}{f' ({dim.dim_param})' if dim.dim_param else ''} of input {value.name!r}")
                remedies += [f"give {OPTIONS[role]}"] if role in OPTIONS else []
            else:
                if dim.dim_param:
                    named[dim.dim_param] = wanted
                dim.dim_value = wanted
                closed = True
    if left:
        remedy = ", ".join([*dict.fromkeys(remedies), "or export it with fixed sizes" if remedies else "export it so"])
        raise LatencyError(
            f"{path}: a model to measure must have inputs of fixed sizes, open are {', '.join(left)}: {remedy}"
        )
    for value in (*model.graph.value_info, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in named:
                dim.dim_value = named[dim.dim_param]
    return closed, tuple(remarks.values())


def _inputs(model: ModelProto) -> list[ValueInfoProto]:
    """Its inputs that are tensors; older files count weights among them."""
    weights = {one.name for one in model.graph.initializer}
    return [one for one in model.graph.input if one.name not in weights and one.type.HasField("tensor_type")]


def _images(model: ModelProto) -> list[ValueInfoProto]:
    return [one for one in _inputs(model) if len(one.type.tensor_type.shape.dim) == len(IMAGE)]


def _roles(value: ValueInfoProto) -> Sequence[str]:
    """What each axis of an input is."""
    dims = value.type.tensor_type.shape.dim
    if len(dims) != len(IMAGE):
        return [f"axis {axis}" if axis else "batch" for axis in range(len(dims))]
    last = dims[3].dim_value in CHANNELS and dims[1].dim_value not in CHANNELS
    return IMAGE_CHANNELS_LAST if last else IMAGE


def _of_8_bits(op: str) -> bool:
    return op.startswith(("QLinear", "QuantizeLinear", "DequantizeLinear")) or op.endswith("Integer")
