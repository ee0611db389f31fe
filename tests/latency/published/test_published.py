import dataclasses
import json
import pickle
from pathlib import Path

import pytest

from latency.address import AdbAddress
from latency.errors import ModelError, TargetError, UnmeasuredKernel
from latency.published.figures import Figure, figures, newest_runtime, published_targets
from latency.published.fitting import fit, judge, rows_of
from latency.published.model import PublishedModel, fit_published, shipped_model
from latency.published.networks import mnasnet, published_network
from latency.published.terms import TERMS, quantities, summed
from latency.store import load_model, load_predictor, read_predictor
from latency.target import load_target, pixel_phone
from searchspace.architecture import Architecture, lower
from searchspace.references import reference
from searchspace.sampling import RandomSuggest
from searchspace.space import load_space

TARGETS = published_targets()


@pytest.fixture(params=TARGETS)
def model(request: pytest.FixtureRequest) -> PublishedModel:
    return shipped_model(request.param)


def sampled(count: int) -> list[Architecture]:
    source = RandomSuggest(0)
    space = load_space("default").adapt(channels=3, classes=10, resolution=64)
    return [space.sample(source) for _ in range(count)]


@pytest.mark.parametrize("target", TARGETS)
def test_the_shipped_model_is_the_fit_to_the_shipped_figures(target):
    again = fit_published(target, load_target(target).settings.precision).as_json()
    shipped = shipped_model(target).as_json()
    assert shipped["weights"] == pytest.approx(again["weights"], rel=1e-3)
    assert shipped["scales"] == pytest.approx(again["scales"], rel=1e-3)
    assert shipped["held_out"] == pytest.approx(again["held_out"], rel=1e-3)
    assert shipped["timed"] == (again["timed"] and pytest.approx(again["timed"], rel=1e-3))
    for key in ("published", "sources", "target", "precision"):
        assert shipped[key] == again[key]


@pytest.mark.parametrize("target", TARGETS)
def test_unseen_families_are_predicted_better_than_by_macs_alone(target):
    found, newest = figures(target), newest_runtime(target)
    model = shipped_model(target)
    rows = [{"macs": float(lower(figure.architecture).macs)} for figure in found]
    assert model.held_out.median_error < judge(found, newest, rows=rows, terms=("macs",)).held_out.median_error
    assert model.held_out.n == len(found) == sum(family.n for family in model.families.values())


@pytest.mark.parametrize(
    ("name", "macs_m", "params_m"),
    [
        ("mnasnet_a1", 312, 3.9),
        ("mnasnet_b1", 314, 4.4),
        ("proxylessnas_mobile", 320, 4.1),
        ("mobilenet_v3_large_minimalistic", 209, 3.9),
        ("mobilenet_v3_small_minimalistic", 52, 2.0),  # the page says 65, of an older Small
    ],
)
def test_relatives_of_the_references_have_their_published_counts(name, macs_m, params_m):
    graph = lower(published_network(name))
    assert round(graph.macs / 1e6) == macs_m
    assert round(graph.params / 1e6, 1) == params_m


def test_unknown_networks_are_refused():
    with pytest.raises(ModelError, match="no published network is called 'mnasnet'"):
        published_network("mnasnet")
    with pytest.raises(ModelError, match="takes no width multiplier"):
        published_network("mnasnet_a1", width_multiplier=0.5)


def test_scales_of_runtimes_are_told_from_weights():
    """Latencies made from known weights, one runtime half as slow again: both are found."""
    weights = dict(zip(TERMS, (2e-7, 5e-7, 4e-7, 6e-7, 0.02), strict=True))
    made = []
    for index, architecture in enumerate(sampled(24)):
        parts = summed(quantities(lower(architecture).ops))
        ms = sum(weights[term] * parts[term] for term in TERMS)
        for runtime, scale in (("new", 1.0), ("old", 1.5))[index % 3 == 0 :]:
            family = f"family {index % 4}"
            made.append(
                Figure(
                    architecture=architecture,
                    ms=ms * scale,
                    family=family,
                    runtime=runtime,
                    source="made up",
                    standing="derived",
                )
            )
    found = fit(made, "new")
    assert found.scales["old"] == pytest.approx(1.5, rel=0.02)
    for figure, row in zip(made, rows_of(made), strict=True):
        assert found.ms(row, figure.runtime) == pytest.approx(figure.ms, rel=0.05)
    with pytest.raises(ModelError, match="some figures must be of the runtime 'newest'"):
        fit(made, "newest")


def test_a_model_that_has_predicted_goes_to_other_processes(model):
    architecture = reference("mobilenet_v2")
    ms = model.predict_ms(architecture)  # its caches are filled, and hold functions
    sent = pickle.loads(pickle.dumps(model))
    assert sent == model
    assert sent.predict_ms(architecture) == ms


def test_milliseconds_add_up_whichever_way_they_are_split(model):
    for architecture in (reference("mobilenet_v2"), *sampled(10)):
        ms = model.predict(architecture).ms
        assert model.predict_ms(architecture) == pytest.approx(ms)
        assert sum(part for _, part in model.explain(architecture)) == pytest.approx(ms)
        assert sum(part for _, part in model.by_kind(architecture)) == pytest.approx(ms)
        assert len(model.explain(architecture)) == len(architecture.blocks) + 1


def test_every_network_of_the_default_space_has_a_prediction_and_says_what_it_rests_on(model):
    for architecture in sampled(50):
        found = model.predict(architecture)
        assert found.basis == "published"
        assert 0 < found.low_ms <= found.ms <= found.high_ms


def test_what_stood_in_no_published_network_makes_the_interval_wider():
    model = shipped_model("pixel1")
    known, fire = model.predict(reference("mobilenet_v2")), model.predict(reference("squeezenet_1_1"))
    assert fire.high_ms / fire.low_ms > 1.5 * known.high_ms / known.low_ms
    assert model.doubts(reference("mobilenet_v2")) == ()
    assert "convolution 3×3" in model.doubts(reference("squeezenet_1_1"))[0]


def test_beyond_the_published_latencies_the_interval_is_wider():
    model = shipped_model("pixel6")
    small = model.predict(reference("mobilenet_v2", resolution=32, width_multiplier=0.35))
    assert small.ms < model.least_ms
    assert small.high_ms / small.low_ms > model.high / model.low
    assert "range from 2.4 to 87.6 ms" in model.doubts(reference("mobilenet_v2", resolution=32))[0]


def test_arithmetic_that_no_figure_stands_for_is_refused():
    with pytest.raises(UnmeasuredKernel, match="no network published for 'pixel1' has 'attention'"):
        shipped_model("pixel1").predict(reference("mobilenet_v4_hybrid_m"))
    assert shipped_model("pixel6").predict(reference("mobilenet_v4_hybrid_m")).ms == pytest.approx(14.3, rel=0.1)


def test_wider_networks_never_take_less(model):
    for narrow, wide in zip((0.35, 0.5, 0.75, 1.0), (0.5, 0.75, 1.0, 1.4), strict=True):
        ms = [model.predict_ms(reference("mobilenet_v2", width_multiplier=width)) for width in (narrow, wide)]
        assert ms[0] < ms[1]


def test_squeeze_excite_has_the_channels_that_enter_the_block():
    (block,) = [block for block in mnasnet([(5, 3, 40, 1, 2, True)]).blocks if getattr(block, "se", 0)]
    assert block.se == 4


def test_pixel_is_a_published_target_without_a_device():
    target = load_target("pixel")
    assert (target.name, target.basis, target.settings.precision) == ("pixel6", "published", "int8")
    with pytest.raises(TargetError, match="nothing can be measured on it"):
        target.open()
    with pytest.raises(ModelError, match="nothing was measured on it"):
        load_model(target)
    assert load_predictor(target) == shipped_model("pixel6")


@pytest.mark.parametrize(("name", "attached"), [("pixel1", "pixel"), ("pixel3", "pixel"), ("pixel6", "pixel-int8")])
def test_the_remark_names_a_target_that_measures_in_the_same_precision(name, attached):
    model = shipped_model(name)
    assert f"`nas targets install {attached} --build` and `nas profile --target {attached}`" in model.remark
    measured = pixel_phone() if attached == "pixel" else load_target(attached)
    assert (measured.basis, measured.settings.precision) == ("measured", model.precision)
    assert isinstance(measured.address, AdbAddress)
    assert measured.address.model == "Pixel"


def test_the_remark_tells_what_was_timed_from_what_was_computed():
    pixel1, pixel6 = shipped_model("pixel1").remark, shipped_model("pixel6").remark
    assert "from 50 published latencies and 24 by TuNAS's linear model, not measured: " in pixel1
    assert "median error 5.4% (6.1% where timed) on families" in pixel1
    assert "from 11 published latencies, not measured: median error 3.9% on families" in pixel6


def test_a_saved_model_is_read_back(model, tmp_path: Path):
    path = tmp_path / "model.json"
    model.save(path)
    assert read_predictor(path) == model


def test_a_damaged_file_is_refused(tmp_path: Path):
    path = tmp_path / "model.json"
    plain = shipped_model("pixel1").as_json()
    path.write_text(json.dumps({**plain, "format": 0}))
    with pytest.raises(ModelError, match="format must be 1, got 0"):
        read_predictor(path)
    del plain["held_out"]
    path.write_text(json.dumps(plain))
    with pytest.raises(ModelError, match="is damaged"):
        read_predictor(path)
    path.write_text("{")
    with pytest.raises(ModelError, match="cannot be read as a latency model"):
        read_predictor(path)


def test_a_published_target_of_ones_own_needs_a_shipped_model():
    mine = dataclasses.replace(load_target("pixel6"), name="mine")
    with pytest.raises(ModelError, match="no model of published latencies is shipped for 'mine'"):
        load_predictor(mine)
    with pytest.raises(ModelError, match="no latencies were published for 'mine'"):
        figures("mine")
