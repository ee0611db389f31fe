"""Formats of other runtimes: ExecuTorch's `.pte` (XNNPACK) and LiteRT's `.tflite`, both from the plain torch modules.

Their packages are large and optional (`pip install pocketnas[executorch]`, `pocketnas[litert]`). Both files take one normalised
image, float32 (1, C, H, W), and give logits (1, classes).
"""

import importlib
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.checkpoint import Checkpoint
from nas.errors import ExportError
from nas.shipping.standalone import plain_network

Logits = NDArray[np.float32]


def to_pte(checkpoint: Checkpoint) -> bytes:
    """The network as an ExecuTorch program.

    Raises:
        ExportError: the extra is missing.
    """
    exir = _needed("executorch.exir", extra="executorch")
    xnnpack = _needed("executorch.backends.xnnpack.partition.xnnpack_partitioner", extra="executorch")
    network, example = _ready(checkpoint)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(network, example)
        edge = exir.to_edge_transform_and_lower(exported, partitioner=[xnnpack.XnnpackPartitioner()])
        program: bytes = bytes(edge.to_executorch().buffer)
    return program


def run_pte(program: bytes, images: Tensor) -> Logits:
    """Logits of images (N, C, H, W) by ExecuTorch, one after the other."""
    runtime = _needed("executorch.runtime", extra="executorch").Runtime.get()
    method = runtime.load_program(program).load_method("forward")
    return np.concatenate([method.execute([image[None].contiguous()])[0].numpy() for image in images])


def to_tflite(checkpoint: Checkpoint) -> bytes:
    """The network as a LiteRT model.

    Raises:
        ExportError: the extra is missing.
    """
    litert = _needed("litert_torch", extra="litert")
    network, example = _ready(checkpoint)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="pocketnas-") as folder:
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.tflite"
        litert.convert(network, example).export(str(path))
        return path.read_bytes()


def run_tflite(model: bytes, images: Tensor) -> Logits:
    """Logits of images (N, C, H, W) by LiteRT, one after the other."""
    interpreter = _needed("ai_edge_litert.interpreter", extra="litert").Interpreter(model_content=model)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    parts = []
    for image in images:
        interpreter.set_tensor(source["index"], np.ascontiguousarray(image[None].numpy()))
        interpreter.invoke()
        parts.append(interpreter.get_tensor(result["index"]))
    return np.concatenate(parts)


WRITERS: dict[str, tuple[Callable[[Checkpoint], bytes], Callable[[bytes, Tensor], Logits]]] = {
    "pte": (to_pte, run_pte),
    "tflite": (to_tflite, run_tflite),
}


def _ready(checkpoint: Checkpoint) -> tuple[nn.Module, tuple[Tensor]]:
    """The plain network, and an input of the size it takes."""
    return plain_network(checkpoint), (torch.zeros(1, *checkpoint.architecture.input_shape),)


def _needed(module: str, *, extra: str) -> Any:
    """A module of an optional package.

    Raises:
        ExportError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ExportError(
            f"this format needs the extra {extra!r} ({error}): pip install 'pocketnas[{extra}]'"
        ) from None
