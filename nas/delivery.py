"""What ships of a trimming on an 8-bit target: the start and the result in 8 bits, as a search ships its finalists.

Steps are judged in float32, and timed by stand-ins of which every layer is in 8 bits. What ships is another model: calibrated on
training images, with the layers in float that would cost too much accuracy. So in the end both files are made, judged on the
test split, and measured.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from nas.checkpoint import Checkpoint
from nas.deployment import accuracy
from nas.errors import StudyError
from nas.family import Family
from nas.shipping.int8 import quantize
from searchspace.files import write_atomically


@dataclass(frozen=True)
class Delivered:
    """A network's 8-bit file.

    Attributes:
        onnx: its name in the run's folder.
        float_layers: layers that stay in float.
        accuracy: on the test split, in [0, 1].
        validation_accuracy: on the split that steps were chosen by.
        ms: on the device, at the speed that it had when the start was measured; None where there is none.
    """

    onnx: str
    float_layers: int
    accuracy: float
    validation_accuracy: float
    ms: float | None


@dataclass(frozen=True)
class Delivery:
    """What ships: the start's file to compare with, and the result's; the same where nothing was trimmed."""

    start: Delivered
    result: Delivered


def deliver(family: Family, path: Path, result: Checkpoint, *, expected_ms: float) -> Delivery | None:
    """Make, judge and measure the files that ship; None where networks ship in float32, which is what steps are timed by.

    Args:
        family: the run's networks.
        path: of the result's checkpoint; its file lies beside it.
        result: the finished network.
        expected_ms: what it takes with all layers in 8 bits.

    Raises:
        StudyError: the record of an earlier delivery is damaged.
        DeviceError: the device is lost.
        UnstableMeasurement: the device does not settle.
    """
    if family.runtime.precision == "fp32":
        return None
    first = family.first()
    start = _delivered(family, family.run.file(first.checkpoint), family.start, expected_ms=first.ms)
    return Delivery(start, _delivered(family, path, result, expected_ms=expected_ms))


def _delivered(family: Family, path: Path, network: Checkpoint, *, expected_ms: float) -> Delivered:
    """The file of a network whose checkpoint lies at `path`; one that was made and measured before is not made again."""
    onnx = path.with_name(f"{path.stem}-int8.onnx")
    record = f"{onnx.stem}.json"
    kept = family.run.read_json(record)
    if kept is not None:
        try:
            return Delivered(**kept)
        except TypeError:
            raise StudyError(f"{family.run.file(record)}: the record is damaged; remove it") from None
    # what counts is the accuracy within the budget: layers in float that only agreement asks for would cost latency
    made = quantize(network, family.data, min_agreement=0.0, on_progress=family.events.progress)
    write_atomically(onnx, made.model)
    family.events.progress("measuring the 8-bit file", 0, None)
    found = family.measured(made.model, expected_ms)
    delivered = Delivered(
        onnx=onnx.name,
        float_layers=len(made.float_layers),
        accuracy=accuracy(made.model, family.data.test, family.data),
        validation_accuracy=made.accuracy,
        ms=None if found is None else found.ms,
    )
    family.run.write_json(record, asdict(delivered))
    return delivered
