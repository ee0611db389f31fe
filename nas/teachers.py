"""Teachers: anything that says of an image how likely each class is.

A teacher is a checkpoint, an ONNX file, or a torch module that a function of the user's own makes (`package.module:function`,
so any model of timm or torchvision). It is asked in evaluation mode and at the resolution and normalisation that it was made for;
the student's may be others.
"""

import dataclasses
import hashlib
import importlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.checkpoint import Checkpoint, load_checkpoint
from nas.data import Data
from nas.errors import TrainingError

Kind = TypeVar("Kind", dict[str, Any], list[Any])


@dataclass(frozen=True, eq=False, kw_only=True)
class Teacher:
    """A network that labels images.

    Attributes:
        name: what people call it.
        identity: hash of it; changes whenever its answers would.
        answer: normalised images, float32, (B, C, R, R), on its device, to logits (B, K).
        classes: class names in the order of its outputs; empty where they are not known.
        channels: C; None: not known, the data's are tried.
        mean: per channel, in units where 0 is black and 1 is white; None: the data's.
        std: like `mean`.
        resolution: R, pixels; None: the data's.
        device: where it computes.
    """

    name: str
    identity: str
    answer: Callable[[Tensor], Tensor]
    classes: tuple[str, ...] = ()
    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resolution: int | None = None
    device: torch.device | str = "cpu"

    @torch.no_grad()
    def logits(self, images: Tensor, data: Data) -> Tensor:
        """What it says of images that are normalised as `data` says: float32, (B, K).

        Raises:
            TrainingError: its outputs are not the data's classes.
        """
        logits = self.answer(self._prepared(images.to(self.device), data))
        if not isinstance(logits, Tensor) or logits.shape != (len(images), len(data.classes)):
            got = f"outputs of shape {tuple(logits.shape[1:])}" if isinstance(logits, Tensor) else type(logits).__name__
            raise TrainingError(
                f"{self.name}: a teacher must tell the data's {len(data.classes)} classes apart, got {got}; "
                "give one that was trained on them"
            )
        return logits.float().to(images.device)

    def check(self, data: Data) -> None:
        """Refuse, before it is asked, a teacher that is known to have other classes or channels.

        Raises:
            TrainingError: it does not fit.
        """
        if self.classes and self.classes != data.classes:
            raise TrainingError(
                f"{self.name}: a teacher must have the data's classes, {_some(data.classes)}, got {_some(self.classes)}; "
                "give one that was trained on them"
            )
        if self.channels not in (None, data.channels, 3 if data.channels == 1 else None):
            raise TrainingError(
                f"{self.name}: a teacher of images of {data.channels} channels is needed, got one of {self.channels}; "
                "train one on them"
            )

    def try_on(self, data: Data) -> None:
        """Check it, and ask it about one black image: what is wrong is known before anything takes time.

        Raises:
            TrainingError: it does not fit, or cannot be asked.
        """
        self.check(data)
        self.logits(torch.zeros(1, data.channels, data.resolution, data.resolution), data)

    def _prepared(self, images: Tensor, data: Data) -> Tensor:
        if self.channels == 3 and data.channels == 1:  # grey images for a teacher of colour
            data = dataclasses.replace(data, mean=data.mean * 3, std=data.std * 3)
            images = images.expand(-1, 3, -1, -1)
        mean, std = self.mean or data.mean, self.std or data.std
        if (mean, std) != (data.mean, data.std):

            def column(values: tuple[float, ...]) -> Tensor:
                return torch.tensor(values, device=images.device).view(1, -1, 1, 1)

            images = (images * column(data.std) + column(data.mean) - column(mean)) / column(std)
        if self.resolution in (None, images.shape[-1]):
            return images
        return F.interpolate(images, size=(self.resolution,) * 2, mode="bilinear", antialias=True, align_corners=False)


def load_teacher(source: str, *, device: torch.device | str = "cpu") -> Teacher:
    """The teacher that `source` names: a checkpoint (`.pt`), an ONNX file, or `package.module:function`.

    The function is called without arguments and returns a torch module; its file may lie in the working directory.
    Normalisation, channels and resolution are read from its `pretrained_cfg`, as timm's models have it; without one they are the
    data's.

    Raises:
        TrainingError: there is none of that name, or it is not a network.
        CheckpointError: the checkpoint cannot be read.
    """
    if source.endswith(".onnx"):
        return onnx_teacher(Path(source))
    if ":" in source and not Path(source).exists():
        return _hooked(source, torch.device(device))
    return checkpoint_teacher(load_checkpoint(Path(source)), name=source, device=device)


def checkpoint_teacher(
    checkpoint: Checkpoint, *, name: str = "the teacher", device: torch.device | str = "cpu"
) -> Teacher:
    """A teacher from a checkpoint of ours."""
    network = checkpoint.network().to(device).requires_grad_(False)
    return Teacher(
        name=name,
        identity=_identity(checkpoint.state, checkpoint.architecture.fingerprint),
        answer=network.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        classes=checkpoint.classes,
        channels=checkpoint.architecture.channels,
        mean=checkpoint.data.mean,
        std=checkpoint.data.std,
        resolution=checkpoint.architecture.resolution,
        device=device,
    )


def module_teacher(module: nn.Module, *, name: str, device: torch.device | str = "cpu") -> Teacher:
    """A teacher from a torch module that maps images to logits; `pretrained_cfg` tells its normalisation, as in timm."""
    config = getattr(module, "pretrained_cfg", None)
    config = config if isinstance(config, Mapping) else {}
    network = module.eval().to(device).requires_grad_(False)
    mean, size = _floats(config.get("mean")), config.get("input_size")
    return Teacher(
        name=name,
        identity=_identity(module.state_dict(), type(module).__qualname__),
        answer=_asked(network, name),
        channels=int(size[0]) if size else len(mean) if mean else None,
        mean=mean,
        std=_floats(config.get("std")),
        resolution=int(size[-1]) if size else None,
        device=device,
    )


def onnx_teacher(path: Path) -> Teacher:
    """A teacher from an ONNX file with one input (N, C, R, R) and logits (N, K) as its first output.

    Files of `nas export` tell how images are normalised and what the classes are; for others it is as the data's.

    Raises:
        TrainingError: the file cannot be read, or is not such a model.
    """
    import onnxruntime

    try:
        content = path.read_bytes()
        session = onnxruntime.InferenceSession(content, providers=onnxruntime.get_available_providers())
    except OSError as error:
        raise TrainingError(f"{path}: a teacher must be a readable file, got: {error.strerror}") from error
    except Exception as error:  # the runtime's errors have no common base
        raise TrainingError(f"{path}: a teacher must be an ONNX model, ONNX Runtime says: {_line(error)}") from error
    inputs = session.get_inputs()
    shapes = ", ".join(f"{one.type} {one.shape}" for one in inputs)
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type != "tensor(float)":
        raise TrainingError(f"{path}: a teacher must have one float32 input (N, C, R, R), got {shapes}; export it so")
    first = inputs[0]
    batch, channels, resolution, width = first.shape
    if isinstance(resolution, int) and isinstance(width, int) and resolution != width:
        raise TrainingError(f"{path}: a teacher must take square images (N, C, R, R), got {shapes}; export it so")
    told = session.get_modelmeta().custom_metadata_map
    described, classes = _told(told, "input", dict), _told(told, "classes", list)
    mean = _floats(described.get("mean"))

    def answer(images: Tensor) -> Tensor:
        array = images.cpu().contiguous().float()
        step = batch if isinstance(batch, int) else len(array)
        said = []
        for piece in torch.split(array, step):  # a model of fixed batch gets its last one filled up
            full = F.pad(piece, (0, 0, 0, 0, 0, 0, 0, step - len(piece)))
            said.append(torch.from_numpy(session.run(None, {first.name: full.numpy()})[0]))
        return torch.cat(said)[: len(images)].to(images.device)

    return Teacher(
        name=str(path),
        identity=hashlib.blake2b(content, digest_size=16).hexdigest(),
        answer=_asked(answer, str(path)),
        classes=tuple(str(name) for name in classes),
        channels=channels if isinstance(channels, int) else len(mean) if mean else None,
        mean=mean,
        std=_floats(described.get("std")),
        resolution=resolution if isinstance(resolution, int) else None,
    )


def _hooked(source: str, device: torch.device) -> Teacher:
    module_name, _, function = source.partition(":")
    if (here := str(Path.cwd())) not in sys.path:  # the console script leaves it out; what is installed goes first
        sys.path.append(here)
    try:
        make = getattr(importlib.import_module(module_name), function)
    except Exception as error:  # the module's own code may raise anything
        raise TrainingError(
            f"{source}: a teacher must be a checkpoint, an ONNX file or a function that can be imported, got: {_line(error)}"
        ) from error
    try:
        made = make()
    except Exception as error:  # whatever the function comes upon: missing arguments, a server that does not answer
        raise TrainingError(
            f"{source}: must return a torch module when it is called without arguments, got: {_line(error)}"
        ) from error
    if not isinstance(made, nn.Module):
        raise TrainingError(f"{source}: must return a torch module, got {type(made).__name__}")
    return module_teacher(made, name=source, device=device)


def _asked(answer: Callable[[Tensor], Any], name: str) -> Callable[[Tensor], Any]:
    """A foreign network's answers; what goes wrong in it is the teacher's fault, and said in one line."""

    def asked(images: Tensor) -> Any:
        try:
            return answer(images)
        except Exception as error:  # foreign code has no common base of errors
            raise TrainingError(
                f"{name}: a teacher must answer images of shape {tuple(images.shape)}, got: {_line(error)}"
            ) from error

    return asked


def _told(metadata: Mapping[str, str], key: str, kind: type[Kind]) -> Kind:
    """What our exports tell under a name; empty where the file is another program's."""
    try:
        value = json.loads(metadata.get(key, "null"))
    except ValueError:
        value = None
    return value if isinstance(value, kind) else kind()


def _line(error: Exception) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _identity(state: Mapping[str, Any], kind: str) -> str:
    digest = hashlib.blake2b(kind.encode(), digest_size=16)
    for name, tensor in sorted(state.items()):
        if isinstance(tensor, Tensor):
            values = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
            digest.update(values.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _floats(values: Any) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in values)


def _some(classes: tuple[str, ...]) -> str:
    return ", ".join(classes[:5]) + (f" … ({len(classes)})" if len(classes) > 5 else "")
