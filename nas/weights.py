"""Weights of timm and torchvision as a network of ours: by name and shape, every tensor accounted for."""

import dataclasses
import io
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nas.checkpoint import Checkpoint, DataRecord, unfilled_network
from nas.errors import CheckpointError
from nas.foreign_names import Library, foreign_name, recognise
from searchspace.architecture import Architecture
from searchspace.network import Network

CLASSIFIER = "head.classifier"
SHOWN = 3  # how many tensors a message names


@dataclass(frozen=True)
class Imported:
    """A checkpoint made from another library's state dict; `new_classifier` says that its last layer was drawn afresh."""

    checkpoint: Checkpoint
    library: Library
    tensors: int
    new_classifier: bool


def import_weights(
    architecture: Architecture, tensors: Mapping[str, Tensor], *, classes: int | None = None
) -> Imported:
    """A checkpoint of `architecture` with another library's weights.

    The checkpoint's batch normalisation is the library's. Padding is symmetric, as in torchvision and in timm's own models;
    timm's ``tf_*`` models have the same names but pad otherwise, so their outputs would differ.

    Args:
        architecture: the network that the weights are of; its own number of classes does not matter.
        tensors: the state dict of timm or torchvision.
        classes: outputs wanted; None: as many as the weights have. Where it is another number the classifier alone starts
            anew (from a fixed seed).

    Raises:
        CheckpointError: a tensor is missing or left over, or has another shape or type.
    """
    library, layers = recognise(tensors.keys(), architecture)
    classifier = tensors.get(f"{layers[CLASSIFIER]}.weight")
    published = architecture.classes if classifier is None or not classifier.ndim else len(classifier)
    norm = library.norm if architecture.norm else None
    source = dataclasses.replace(architecture, classes=published, norm=norm)
    state = _renamed(source, tensors, layers)
    wanted = dataclasses.replace(source, classes=published if classes is None else classes)
    if wanted.classes != published:
        state |= _fresh_classifier(wanted)
    checkpoint = Checkpoint(
        architecture=wanted,
        state=state,
        classes=(),
        data=DataRecord("", "", *library.normalisation(wanted.channels)),
        recipe={"imported": library.name},
    )
    return Imported(checkpoint, library, tensors=len(tensors), new_classifier=wanted.classes != published)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict in a ``.pt``, ``.pth`` or ``.safetensors`` file; nothing in the file is executed.

    A state dict may lie under the key ``state_dict``.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it holds anything but tensors.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = "is a folder" if path.is_dir() else error.strerror
        raise CheckpointError(f"{path}: a file of weights is needed, got none ({reason})") from error
    if path.suffix == ".safetensors":
        loaded: object = _read_safetensors(path, content)
    elif path.suffix in (".pt", ".pth"):
        loaded = _read_archive(path, content)
    else:
        raise CheckpointError(f"{path}: weights must be .pt, .pth or .safetensors, got {path.suffix or 'no suffix'}")
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(tensor, Tensor) for tensor in loaded.values()):
        raise CheckpointError(f"{path}: a state dict (tensors by name) is needed, got something else")
    return {str(name): tensor for name, tensor in loaded.items()}


def _read_archive(path: Path, content: bytes) -> object:
    """What torch saved, in its zip or its older format."""
    if content.startswith(b"PK"):
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as members:
                damaged = members.testzip()  # torch does not compare the checksums that it writes
        except Exception as error:  # damaged bytes lead the reader anywhere
            raise CheckpointError(f"{path}: is cut short or damaged; get it again") from error
        if damaged is not None:
            raise CheckpointError(f"{path}: is damaged ({damaged} does not have its checksum); get it again")
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds more than plain data and tensors (loading that could run code) or is cut short; "
            "save its state_dict() alone"
        ) from error
    except Exception as error:
        raise CheckpointError(f"{path}: is cut short, damaged, or not a file of torch.save") from error


def _read_safetensors(path: Path, content: bytes) -> object:
    try:
        import safetensors
        import safetensors.torch
    except ImportError:
        raise CheckpointError(
            f"{path}: reading .safetensors needs the package safetensors; install it with pip install 'pocketnas[safetensors]'"
        ) from None
    try:
        return safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path}: is cut short or damaged ({error}); get it again") from error


def _renamed(architecture: Architecture, tensors: Mapping[str, Tensor], layers: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors under our names, once each is known to fit."""
    expected = unfilled_network(architecture).state_dict()
    theirs = {ours: foreign_name(ours, layers) for ours in expected}
    name = architecture.name or "the architecture"
    if missing := sorted(set(theirs.values()) - tensors.keys()):
        raise CheckpointError(f"{name} needs the tensor {_some(missing)}, which the weights do not have")
    if surplus := sorted(tensors.keys() - set(theirs.values())):
        raise CheckpointError(f"the weights have the tensor {_some(surplus)}, which {name} does not have")
    state: dict[str, Tensor] = {}
    for ours, wanted in expected.items():
        tensor = tensors[theirs[ours]]
        if tensor.dtype != wanted.dtype:
            raise CheckpointError(
                f"{theirs[ours]}: {_plain(wanted.dtype)} is needed, got {_plain(tensor.dtype)}; convert it"
            )
        if _without_ones(tensor) != _without_ones(wanted):
            raise CheckpointError(
                f"{theirs[ours]}: {name} needs the shape {list(wanted.shape)}, got {list(tensor.shape)}; "
                "is it of another width (--width-multiplier) or of other input (--channels)?"
            )
        state[ours] = tensor.reshape(wanted.shape)
    return state


def _fresh_classifier(architecture: Architecture) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = Network(architecture).state_dict()
    return {name: tensor for name, tensor in fresh.items() if name.startswith(f"{CLASSIFIER}.")}


def _without_ones(tensor: Tensor) -> list[int]:
    """The shape less 1×1 kernels: a linear layer on a pooled vector and a 1×1 convolution have the same weights."""
    shape = list(tensor.shape)
    return shape[:2] if shape[2:] == [1, 1] else shape


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _some(names: list[str]) -> str:
    rest = f" (and {len(names) - SHOWN} more)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest
