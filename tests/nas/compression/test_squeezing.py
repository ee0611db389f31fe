"""Deep Compression as a whole: what it refuses before it begins, and what its stages look at."""

import dataclasses
from pathlib import Path

import pytest
import torch

from nas.checkpoint import load_checkpoint
from nas.compression import squeezing
from nas.compression.magnitude import layers
from nas.compression.squeezing import Settings, compressible
from nas.data import Data
from nas.deployment import random_checkpoint
from nas.errors import CompressionError
from nas.recipe import Recipe
from nas.run import Run
from nas.training import train
from searchspace.architecture import Architecture
from searchspace.blocks import ClassicHead, Conv
from tests.nas.compression.test_container import SMALL
from tests.nas.learning import RESOLUTION, mapped, shapes

SETTINGS = Settings(retrain=Recipe(epochs=1), tune=Recipe(epochs=1))


def test_what_cannot_be_done_is_said() -> None:
    start = random_checkpoint(SMALL)
    found = {layer.name.removesuffix(".weight"): layer.weights for layer in compressible(start, SETTINGS)}
    assert len(found) > 2
    largest = max(found, key=lambda name: found[name])
    for densities, density, complaint in (
        ({"nowhere": 0.5}, 0.5, f"got 'nowhere'; known: .*{largest}"),
        ({largest: 1.0}, 0.01, "--density 0.01 cannot be met"),
        ({largest: 0.01}, 0.99, "--density 0.99 cannot be met"),
    ):
        with pytest.raises(CompressionError, match=complaint):
            compressible(start, dataclasses.replace(SETTINGS, layer_densities=densities, density=density))
    everything = dataclasses.replace(SETTINGS, layer_densities=dict.fromkeys(found, 1.0), density=0.01)
    assert len(compressible(start, everything)) == len(found)
    tiny = random_checkpoint(Architecture((Conv(cout=8),), resolution=8, classes=2))
    with pytest.raises(CompressionError, match="nothing to compress"):
        compressible(tiny, SETTINGS)


DATA = shapes()
WIDE = Architecture((Conv(cout=8), Conv(cout=32), Conv(cout=16)), ClassicHead(), RESOLUTION, 1, 3)


class Silence:
    def note(self, message: str) -> None: ...
    def progress(self, what: str, done: int, total: int | None) -> None: ...


def test_mapped_images_tell_the_densities_that_the_same_in_memory_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(squeezing, "SCANNED_IMAGES", 30)
    how = Recipe(epochs=3, batch_size=16, lr=0.1, flip=False)
    start = train(WIDE, DATA, how).checkpoint

    def densities(data: Data, name: str) -> dict[str, float]:
        (tmp_path / name).mkdir()
        settings = Settings(density=0.2, retrain=how, tune=how)
        stages = squeezing._Stages(Run(tmp_path / name, "compress", {}), data, settings, Silence())
        return stages.densities(start, layers(start))

    assert densities(DATA, "memory") == densities(mapped(DATA), "mapped")


def test_a_network_can_be_taught_by_what_it_was(tmp_path: Path) -> None:
    how = Recipe(epochs=1, batch_size=16, lr=0.1, flip=False)
    start = train(WIDE, DATA, how).checkpoint

    def pruned(distill: float) -> dict[str, torch.Tensor]:
        folder = tmp_path / f"{distill:g}"
        folder.mkdir()
        settings = Settings(density=0.2, rounds=1, distill=distill, retrain=how, tune=how)
        compressed = squeezing.compress(
            Run(folder, "compress", {}), start, DATA, settings=settings, events=Silence(), path=folder / "small.nasz"
        )
        assert compressed.accuracy_after > 0
        return dict(load_checkpoint(folder / "pruned-1.pt").state)

    untaught, taught = pruned(0.0), pruned(0.5)
    assert any(not torch.equal(untaught[name], taught[name]) for name in untaught)
    with pytest.raises(CompressionError, match=r"--distill must be in \[0, 1\], got 1.5"):
        dataclasses.replace(SETTINGS, distill=1.5)
