"""Imported weights give what the originals give: logits in torch and ONNX Runtime, loss, gradients, statistics."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from nas.errors import CheckpointError
from nas.foreign_names import foreign_name, recognise
from nas.weights import import_weights, read_tensors
from searchspace.architecture import Architecture, lower
from searchspace.network import Network
from searchspace.onnx_graph import fold, to_onnx
from searchspace.references import reference
from tests.searchspace.fixtures.drawn import drawn_images, projection
from tests.searchspace.fixtures.originals import ORIGINALS, Original, architecture_of, state_of

TRAINING_PX = 64


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small tensors of float64: threads would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("name", "px"), [(name, int(px)) for name, original in ORIGINALS.items() for px in original["logits"]]
)
def test_logits_equal_the_originals(name: str, px: int) -> None:
    original = ORIGINALS[name]
    architecture = dataclasses.replace(architecture_of(original), resolution=px)
    checkpoint = import_weights(architecture, state_of(original)).checkpoint
    images = drawn_images(2, 3, px)
    with torch.no_grad():
        by_torch = checkpoint.network()(torch.from_numpy(images)).numpy()
    expected = original["logits"][str(px)]
    for values in (by_torch, by_onnx_runtime(checkpoint.architecture, checkpoint.state, images)):
        norm = np.linalg.norm(values, axis=1)
        np.testing.assert_allclose(norm, expected["norm"], rtol=1e-4)
        scale = norm.max() / values.shape[1] ** 0.5
        np.testing.assert_allclose(values[:, ::125], expected["every_125th"], rtol=1e-4, atol=1e-4 * scale)


def by_onnx_runtime(architecture: Architecture, state: Any, images: np.ndarray) -> np.ndarray:
    lowered = lower(architecture)
    model = to_onnx(lowered, fold(lowered, {name: tensor.numpy() for name, tensor in state.items()}), batch=2)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": images})[0])


@pytest.mark.parametrize("name", ORIGINALS)
def test_one_training_step_equals_the_originals(name: str) -> None:
    """In float64, where only a difference of meaning can show."""
    original = ORIGINALS[name]
    expected = original["training"]
    network, theirs = training_network(original)
    images = torch.from_numpy(drawn_images(4, 3, TRAINING_PX)).double()
    loss = torch.nn.functional.cross_entropy(network(images), torch.tensor([1, 20, 300, 999]))
    loss.backward()
    gradients = {
        theirs[ours]: parameter.grad for ours, parameter in network.named_parameters() if parameter.grad is not None
    }
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-6)
    for tensor, norm in expected["gradient_norms"].items():
        assert gradients[tensor].norm().item() == pytest.approx(norm, rel=1e-5, abs=1e-9), tensor
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm().item()
    assert norm == pytest.approx(expected["gradient_norm"], rel=1e-6)
    projected = sum(
        float((gradient * torch.from_numpy(projection(tensor, gradient.shape))).sum())
        for tensor, gradient in gradients.items()
    )
    assert projected == pytest.approx(expected["gradient_projection"], abs=1e-6 * norm)
    statistics = [buffer.norm().item() for tensor, buffer in network.named_buffers() if "running" in tensor]
    assert np.linalg.norm(statistics) == pytest.approx(expected["statistics_norm"], rel=1e-6)


def training_network(original: Original) -> tuple[Network, dict[str, str]]:
    """The imported network in float64 and training mode without dropout, and the original's names of its tensors."""
    tensors = state_of(original)
    checkpoint = import_weights(architecture_of(original), tensors).checkpoint
    architecture = dataclasses.replace(
        checkpoint.architecture, head=dataclasses.replace(checkpoint.architecture.head, dropout=0.0)
    )
    network = Network(dataclasses.replace(architecture, resolution=TRAINING_PX))
    network.load_state_dict(checkpoint.state)
    _, layers = recognise(tensors.keys(), architecture)
    return network.double().train(), {ours: foreign_name(ours, layers) for ours in checkpoint.state}


SOURCE = ORIGINALS["timm-mobilenetv3_small_100"]
ARCHITECTURE = reference("mobilenet_v3_small")


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return state_of(SOURCE)


@pytest.mark.parametrize(
    ("name", "epsilon", "momentum"),
    [("timm-mobilenetv3_small_100", 1e-5, 0.1), ("torchvision-mobilenet_v3_small", 1e-3, 0.01)],
)
def test_normalisation_is_the_librarys(name: str, epsilon: float, momentum: float) -> None:
    norm = import_weights(ARCHITECTURE, state_of(ORIGINALS[name])).checkpoint.architecture.norm
    assert norm is not None
    assert (norm.epsilon, norm.momentum) == (epsilon, momentum)


def test_every_tensor_is_taken_and_none_is_left_at_random(tensors: dict[str, Tensor]) -> None:
    imported = import_weights(ARCHITECTURE, tensors)
    assert imported.tensors == len(tensors) == len(imported.checkpoint.state)
    assert sorted(float(tensor.double().sum()) for tensor in tensors.values()) == sorted(
        float(tensor.double().sum()) for tensor in imported.checkpoint.state.values()
    )


def test_another_class_count_starts_only_the_classifier_anew(tensors: dict[str, Tensor]) -> None:
    state = torch.random.get_rng_state()
    whole, changed = import_weights(ARCHITECTURE, tensors), import_weights(ARCHITECTURE, tensors, classes=10)
    assert not whole.new_classifier
    assert changed.new_classifier
    assert changed.checkpoint.architecture.classes == 10
    for name, tensor in changed.checkpoint.state.items():
        same = tensor.shape == whole.checkpoint.state[name].shape and torch.equal(tensor, whole.checkpoint.state[name])
        assert same == (not name.startswith("head.classifier.")), name
    again = import_weights(ARCHITECTURE, tensors, classes=10).checkpoint.state["head.classifier.weight"]
    assert torch.equal(again, changed.checkpoint.state["head.classifier.weight"])
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_weights_own_class_count_is_the_default(tensors: dict[str, Tensor]) -> None:
    fine_tuned = {**tensors, "classifier.weight": torch.zeros(7, 1024), "classifier.bias": torch.zeros(7)}
    imported = import_weights(ARCHITECTURE, fine_tuned)
    assert imported.checkpoint.architecture.classes == 7
    assert not imported.new_classifier


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"blocks.2.0.conv_pwl.weight": None},
            "needs the tensor blocks.2.0.conv_pwl.weight, which the weights do not have",
        ),
        ({"blocks.2.0.bn3.running_var": None}, "needs the tensor blocks.2.0.bn3.running_var"),
        ({"conv_head.bias": None, "classifier.bias": None}, "needs the tensor classifier.bias, conv_head.bias"),
        ({"aux.weight": torch.zeros(3)}, "have the tensor aux.weight, which mobilenet_v3_small does not have"),
        ({"bn1.weight": torch.zeros(16, dtype=torch.float16)}, "bn1.weight: float32 is needed, got float16"),
        ({"bn1.weight": torch.zeros(24)}, r"bn1.weight: mobilenet_v3_small needs the shape \[16\], got \[24\]"),
        (
            {"classifier.weight": torch.zeros(1000)},
            r"classifier.weight: .* needs the shape \[1000, 1024\], got \[1000\]",
        ),
        ({"classifier.weight": torch.tensor(1.0)}, r"classifier.weight: .* needs the shape \[1000, 1024\], got \[\]"),
    ],
)
def test_what_does_not_fit_is_named(tensors: dict[str, Tensor], change: dict[str, Tensor | None], message: str) -> None:
    changed = {name: tensor for name, tensor in {**tensors, **change}.items() if tensor is not None}
    with pytest.raises(CheckpointError, match=message):
        import_weights(ARCHITECTURE, changed)


def test_another_width_is_named(tensors: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"needs the shape .*--width-multiplier"):
        import_weights(reference("mobilenet_v3_small", width_multiplier=1.5), tensors)


@pytest.mark.parametrize(
    "name", sorted({original["reference"] for original in ORIGINALS.values()} | {"mobilenet_v1_full_conv"})
)
@pytest.mark.parametrize(
    "source",
    [
        "timm-mobilenetv3_small_100",
        "torchvision-mobilenet_v3_small",
        "torchvision-mobilenet_v2",
        "torchvision-squeezenet1_1",
    ],
)
def test_another_architecture_is_refused(source: str, name: str) -> None:
    if ORIGINALS[source]["reference"] != name:
        with pytest.raises(CheckpointError):
            import_weights(reference(name), state_of(ORIGINALS[source]))


def test_tensors_of_unknown_names_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"must be a state dict of timm's .* got tensors called conv1.weight"):
        import_weights(ARCHITECTURE, {"conv1.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="12 blocks between stem and head are needed, got weights of 1"):
        import_weights(
            ARCHITECTURE, {name: torch.zeros(1) for name in ("conv_stem.weight", "blocks.x.y", "blocks.1.2.z")}
        )
    with pytest.raises(CheckpointError, match="got tensors called nothing"):
        import_weights(ARCHITECTURE, {})


def test_input_that_is_not_colour_can_be_imported(tensors: dict[str, Tensor]) -> None:
    grey = {**tensors, "conv_stem.weight": tensors["conv_stem.weight"].sum(1, keepdim=True)}
    checkpoint = import_weights(reference("mobilenet_v3_small", channels=1), grey).checkpoint
    assert (checkpoint.data.mean, checkpoint.data.std) == ((0.5,), (0.5,))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".old.pth", ".safetensors", ".nested.pt"])
def test_files_of_every_kind_are_read(tmp_path: Path, tensors: dict[str, Tensor], suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    save(tensors, path)
    read = read_tensors(path)
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("suffix", [".pt", ".old.pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_named(tmp_path: Path, tensors: dict[str, Tensor], suffix: str, share: float) -> None:
    path = tmp_path / f"weights{suffix}"
    save(tensors, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=f"{path.name}: .*(cut short|damaged)"):
        read_tensors(path)


def test_a_changed_byte_is_noticed(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    path = tmp_path / "weights.pt"
    save(tensors, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_tensors(path)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this must not run",)


@pytest.mark.parametrize("content", [Hostile(), {"conv_stem.weight": Hostile()}, [1, 2], {"epoch": 3}, torch.zeros(2)])
def test_anything_but_tensors_by_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: object
) -> None:
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"more than plain data and tensors|a state dict"):
        read_tensors(path)
    assert not capsys.readouterr().out


def test_paths_that_are_no_files_of_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.txt").write_text("1")
    for name, message in {
        "absent.pt": "No such file",
        "weights.txt": "must be .pt, .pth or .safetensors",
        ".": "is a folder",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            read_tensors(tmp_path / name)


def save(tensors: dict[str, Tensor], path: Path) -> None:
    match path.suffixes:
        case [".safetensors"]:
            save_file(tensors, path)
        case [".old", _]:
            torch.save(tensors, path, _use_new_zipfile_serialization=False)
        case [".nested", _]:
            torch.save({"epoch": 3, "state_dict": tensors}, path)
        case _:
            torch.save(tensors, path)
