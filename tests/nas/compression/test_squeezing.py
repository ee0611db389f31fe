"""Deep Compression as a whole: what its stages look at."""

from pathlib import Path

import pytest

from nas.compression import squeezing
from nas.compression.magnitude import layers
from nas.compression.squeezing import Settings
from nas.data import Data
from nas.recipe import Recipe
from nas.run import Run
from nas.training import train
from searchspace.architecture import Architecture
from searchspace.blocks import ClassicHead, Conv
from tests.nas.learning import RESOLUTION, mapped, shapes

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
