import dataclasses
import itertools
import json
import pickle

import numpy as np
import pytest

from latency.errors import ModelError, UnmeasuredKernel
from latency.fake import FakeDevice, true_ms
from latency.features import measured_as, weight_bytes
from latency.model import FORMAT, LatencyModel
from latency.planning import kernels
from latency.samples import varied_architectures
from latency.table import TOGETHER, BlockTable, tabulate
from searchspace.architecture import Architecture, lower
from searchspace.blocks import UIB, ClassicHead, Conv, Fire, MultiQueryAttention, NinHead, Pool
from searchspace.errors import ArchitectureError
from searchspace.graph import Norm, Shape
from searchspace.onnx_graph import random_weights, to_onnx
from searchspace.sampling import RandomSuggest
from searchspace.space import load_space
from tests.latency.profiled import fake_model


@pytest.fixture(scope="module")
def model() -> LatencyModel:
    return fake_model()


@pytest.fixture(scope="module")
def unseen(model) -> list[Architecture]:
    """Networks that the model was not fitted to, but all of whose kernels it knows."""

    def known(architecture: Architecture) -> bool:
        found = kernels(lower(architecture), nchwc_block=model.provenance.nchwc_block)
        return all(name in model.measured for kernel in found for name in measured_as(kernel))

    return list(itertools.islice(filter(known, varied_architectures(1)), 40))


def test_a_model_that_has_predicted_goes_to_other_processes(model, unseen):
    architecture = unseen[0]
    ms = model.predict_ms(architecture)  # its caches are filled, and hold functions
    sent = pickle.loads(pickle.dumps(model))
    assert sent == model
    assert sent.predict_ms(architecture) == ms


def test_unseen_networks_are_predicted_and_mostly_lie_in_their_interval(model, unseen):
    ratios, inside = [], []
    for architecture in unseen:
        graph = lower(architecture)
        ms = true_ms(to_onnx(graph, random_weights(graph)))
        found = model.predict(architecture)
        ratios.append(found.ms / ms)
        inside.append(found.low_ms <= ms <= found.high_ms)
        assert found.low_ms <= found.ms <= found.high_ms
        assert found.ms == pytest.approx(model.predict_ms(architecture))
        assert found.basis == "measured"
    assert np.median(np.abs(np.array(ratios) - 1)) < 0.1
    assert np.mean(inside) > 0.8


def test_explanations_add_up_and_name_every_block(model, unseen):
    for architecture in unseen:
        parts = model.explain(architecture)
        assert [name for name, _ in parts] == [
            *(f"blocks.{i}" for i in range(len(architecture.blocks))),
            "head",
            "memory",
            "network",
        ]
        assert sum(ms for _, ms in parts) == pytest.approx(model.predict_ms(architecture))
        assert min(ms for _, ms in parts) >= 0


def test_kinds_of_kernels_add_up_and_the_dominating_one_comes_first(model, unseen):
    for architecture in unseen:
        parts = model.by_kind(architecture)
        assert sum(ms for _, ms in parts) == pytest.approx(model.predict_ms(architecture))
        assert [ms for _, ms in parts] == sorted((ms for _, ms in parts), reverse=True)
    wide = Architecture((Conv(cout=64), Conv(cout=64), Conv(cout=64)), resolution=64)
    assert model.by_kind(wide)[0][0] == "nchwc convolution"


def test_predicting_by_blocks_is_predicting_by_kernels(model, unseen):
    for architecture in unseen:
        found = kernels(lower(architecture), nchwc_block=model.provenance.nchwc_block)
        expected = model.kernels_ms(found) + model.memory_ms(weight_bytes(found)) + model.weights["network"]
        assert model.predict_ms(architecture) == pytest.approx(expected)


def test_a_kernel_never_measured_is_an_error_that_names_it(model):
    blocks = (Conv(cout=16, stride=2), Conv(cout=16, kernel=9))
    with pytest.raises(
        UnmeasuredKernel, match=r"'nchwc convolution 9×9', which was never measured: .*nas profile --target host"
    ):
        model.predict(Architecture(blocks, resolution=32))
    ignorant = dataclasses.replace(model, measured=model.measured - {"activation HardSwish"})
    with pytest.raises(UnmeasuredKernel, match="'activation HardSwish'"):
        ignorant.predict(Architecture((Conv(cout=16, activation="hard_swish"),), resolution=32))


def test_files_keep_everything(model, unseen, tmp_path):
    model.save(tmp_path / "model.json")
    again = LatencyModel.load(tmp_path / "model.json")
    assert again == model
    assert [again.predict(one) for one in unseen] == [model.predict(one) for one in unseen]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"\x80\x04]", "cannot be read"),
        (b"[]", f"format must be {FORMAT}, got None"),
        (b'{"format": 9}', f"format must be {FORMAT}, got 9"),
        (b'{"format": 1}', "damaged"),
    ],
)
def test_damaged_files_are_refused(tmp_path, content, message):
    path = tmp_path / "model.json"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        LatencyModel.load(path)


@pytest.mark.parametrize("key", ["weights", "provenance", "settings", "held_out", "measurements", "uncertainty"])
def test_files_without_a_part_are_refused(model, tmp_path, key):
    path = tmp_path / "model.json"
    plain = {**model.as_json(), "measurements": []}
    for value in (None, {"no": 1}):
        path.write_text(json.dumps({**plain, key: value}))
        with pytest.raises(ModelError):
            LatencyModel.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runtime": "1.0"}, r"measured with runtime '.*', but here it is '1.0'"),
        ({"cpu": "other"}, "measured with cpu 'pretended', but here it is 'other'"),
        ({"nchwc_block": 4}, "nchwc_block"),
        ({"threads": 2}, "measured with threads 1, but here it is 2: run `nas profile --target host`"),
        ({"precision": "int8"}, "precision"),
        ({"provider": "xnnpack"}, "provider"),
    ],
)
def test_another_device_or_way_of_running_is_refused(model, change, message):
    provenance = model.provenance
    settings = model.settings
    model.require(provenance, settings)
    if hasattr(provenance, next(iter(change))):
        provenance = dataclasses.replace(provenance, **change)
    else:
        settings = dataclasses.replace(settings, **change)
    with pytest.raises(ModelError, match=message):
        model.require(provenance, settings)


def test_what_does_not_matter_is_not_compared(model):
    elsewhere = dataclasses.replace(model.provenance, governor="powersave", memory_bytes=1, system="another kernel")
    model.require(elsewhere, model.settings)


def uib(cout: int, **values: object) -> UIB:
    return UIB(cout=cout, hidden=2 * cout, **values)  # type: ignore[arg-type]


SLOTS = [
    [(Conv(cout=16, stride=2),), (Conv(cout=18, stride=2),)],
    [(uib(24),), (uib(16, residual=True), uib(24)), (Fire(squeeze=8, expand1x1=8, expand3x3=16),), (Pool(),)],
    [(), (uib(24, residual=True),), (MultiQueryAttention(heads=2, key_dim=16, value_dim=16),)],
]


def test_the_table_is_exactly_the_model(model):
    """All combinations: where blocks do not fit each other (a residual between two widths) the table says infinity."""
    head, norm = ClassicHead(), Norm()
    table = BlockTable.build(model, SLOTS, shape=Shape(3, 32, 32), head=head, classes=10, norm=norm)
    choices = np.array(list(np.ndindex(*(len(slot) for slot in SLOTS))))
    fits = 0
    for picked, ms in zip(choices, table.lookup_ms(choices), strict=True):
        blocks = sum((SLOTS[slot][choice] for slot, choice in enumerate(picked)), ())
        try:
            architecture = Architecture(blocks, head, resolution=32, classes=10, norm=norm)
        except Exception:
            assert ms == np.inf
        else:
            fits += 1
            assert ms == pytest.approx(model.predict_ms(architecture))
    assert 5 < fits < len(choices)


def test_a_table_with_one_way_through(model):
    table = BlockTable.build(
        model, [[(Conv(cout=16),)]] * 3, shape=Shape(1, 8, 8), head=NinHead(), classes=3, norm=None
    )
    architecture = Architecture((Conv(cout=16),) * 3, NinHead(), 8, 1, 3, None)
    found = table.lookup_ms(np.zeros((5, 3), np.int64))
    assert found == pytest.approx(np.full(5, model.predict_ms(architecture)))


def test_the_device_s_block_decides_which_kernels_are_costed(model):
    architecture = Architecture((Conv(cout=16, stride=2), Conv(cout=24)), resolution=32)
    plain = dataclasses.replace(model, provenance=dataclasses.replace(model.provenance, nchwc_block=1))
    assert plain.predict_ms(architecture) != model.predict_ms(architecture)
    assert model.provenance == FakeDevice().describe()


def test_a_space_is_tabulated_with_all_its_choices(model):
    class Everything(frozenset):
        def __contains__(self, name):
            return True

    space = load_space("default").adapt(channels=3, classes=10, resolution=32)
    model = dataclasses.replace(model, measured=Everything())
    table = tabulate(model, space)
    assert len(table.slots) == sum(stage.depth[-1] for stage in space.stages)
    source = np.random.default_rng(0)
    picks = np.stack([source.integers(0, len(choices), 50) for choices in table.slots], axis=1)
    head = space.sample(RandomSuggest(0)).head
    for picked, ms in zip(picks, table.lookup_ms(picks), strict=True):
        blocks = sum((choices[one] for choices, one in zip(table.slots, picked, strict=True)), ())
        architecture = Architecture(blocks, head, 32, 3, 10, Norm())
        assert ms == pytest.approx(model.predict_ms(architecture))
    many = TOGETHER // len(picks) + 2
    assert np.array_equal(table.lookup_ms(np.tile(picks, (many, 1))), np.tile(table.lookup_ms(picks), many))


def test_a_table_is_of_one_resolution(model):
    space = dataclasses.replace(load_space("default"), resolution=(32, 64))
    with pytest.raises(ArchitectureError, match="a table is of one resolution, the space has 32, 64"):
        tabulate(model, space)
