"""What every device must do. A test class for a device inherits from `DeviceConformance` and gives it a `device` fixture."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import onnx
import pytest

from latency.device import Device
from latency.errors import DeviceError
from latency.provenance import Provenance
from latency.settings import Effort, RuntimeSettings
from latency.timing import QUIET_SLICES
from tests.latency.models import small_model

QUICK = Effort(processes=1, slices=8, tolerance=1.0, limit_s=1.0)  # so many that some are undisturbed
SETTINGS = RuntimeSettings()


class DeviceConformance:
    limit_s = QUICK.limit_s  # of device time a network; a device that is slow for its clock takes more

    @pytest.fixture
    def device(self) -> Device:
        raise NotImplementedError

    def test_describes_itself_the_same_every_time(self, device):
        first = device.describe()
        assert first == device.describe()
        assert first == Provenance.from_json(first.as_json())
        assert first.nchwc_block in (1, 4, 8, 16, 32)
        assert first.runtime
        assert "CPUExecutionProvider" in first.providers

    def test_measures_several_models_in_their_order(self, device):
        models = [small_model(channels=64, resolution=48), small_model(), small_model(channels=32, resolution=32)]
        seen: dict[int, int] = {0: 0, 1: 0, 2: 0}

        def count(index, part):
            seen[index] += len(part.ns)

        effort = replace(QUICK, limit_s=self.limit_s)
        timings = device.measure(models, settings=SETTINGS, effort=effort, on_slice=count)
        assert [timing.runs for timing in timings] == [seen[index] for index in range(3)]
        assert all(len(timing.slices) >= QUIET_SLICES for timing in timings)
        assert timings[0].low_ms > timings[2].low_ms > timings[1].low_ms > 0  # 100, 12 and 1 million MACs

    def test_at_least_so_many_processes_take_part(self, device):
        effort = replace(QUICK, processes=2, limit_s=self.limit_s)
        [timing] = device.measure([small_model()], settings=SETTINGS, effort=effort)
        assert {part.process for part in timing.slices} >= {0, 1}  # more where the device was disturbed

    def test_a_timing_says_when_it_was_taken_and_on_which_cores(self, device):
        [timing] = device.measure([small_model()], settings=SETTINGS, effort=QUICK)
        assert datetime.fromisoformat(timing.date) <= datetime.now(UTC)
        assert timing.cores is None or len(timing.cores) == SETTINGS.threads
        provenance = device.describe().measured([timing])
        assert (provenance.date, provenance.bound, provenance.batch) == (timing.date, timing.cores, 1)
        kept = Provenance.from_json(provenance.as_json())
        assert (kept.date, kept.bound) == (provenance.date, provenance.bound)

    def test_measuring_nothing_gives_nothing(self, device):
        assert device.measure([], settings=SETTINGS, effort=QUICK) == []

    @pytest.mark.parametrize("dtype", ["uint8", "int8"])
    def test_integer_inputs_are_made_up_too(self, device, dtype):
        [timing] = device.measure([small_model(dtype=dtype)], settings=SETTINGS, effort=QUICK)
        assert timing.runs > 0

    def test_profile_names_the_nodes_that_were_executed(self, device):
        times = device.profile(small_model(), settings=SETTINGS, runs=3)
        assert sum(time.op in ("Conv", "FusedConv") for time in times) == 2  # the second where there are no blocks
        assert all(time.ms >= 0 for time in times)

    def test_optimized_model_is_what_the_runtime_executes(self, device):
        graph = onnx.load_from_string(device.optimize(small_model(), settings=SETTINGS)).graph
        assert not [node for node in graph.node if node.op_type == "Relu"], (
            "the activation is fused into its convolution"
        )

    def test_graph_level_is_obeyed(self, device):
        plain = device.optimize(small_model(), settings=RuntimeSettings(graph_level="disabled"))
        assert [node.op_type for node in onnx.load_from_string(plain).graph.node].count("Relu") == 2

    def test_outputs_are_those_of_the_runtime(self, device):
        import onnxruntime

        model = small_model()
        image = np.random.default_rng(1).standard_normal((1, 3, 16, 16)).astype(np.float32)
        expected = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": image})[0]
        found = device.outputs(model, {"x": image}, settings=SETTINGS)
        assert list(found) == ["y"]
        assert found["y"].dtype == np.float32
        np.testing.assert_allclose(found["y"], expected, rtol=1e-4, atol=1e-5)

    def test_memory_is_positive_or_unknown(self, device):
        peak = device.memory(small_model(), settings=SETTINGS)
        assert peak is None or peak > 0

    @pytest.mark.parametrize("call", ["measure", "optimize", "profile", "memory"])
    def test_a_damaged_model_is_the_callers_fault(self, device, call):
        damaged = small_model()[:200]
        with pytest.raises(DeviceError) as caught:
            if call == "measure":
                device.measure([small_model(), damaged], settings=SETTINGS, effort=QUICK)
            else:
                getattr(device, call)(damaged, settings=SETTINGS)
        assert "\n" not in str(caught.value)

    def test_wrong_inputs_are_the_callers_fault(self, device):
        with pytest.raises(DeviceError):
            device.outputs(small_model(), {"image": np.zeros((1, 3, 16, 16), np.float32)}, settings=SETTINGS)

    def test_it_works_again_after_an_error(self, device):
        with pytest.raises(DeviceError):
            device.optimize(b"no model", settings=SETTINGS)
        assert device.optimize(small_model(), settings=SETTINGS)

    def test_reserving_it_twice_is_free(self, device):
        with device.reserve("outer"), device.reserve("inner"):
            assert device.optimize(small_model(), settings=SETTINGS)
