from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from latency.choosing import POOL, Queue, most_telling
from latency.errors import DeviceError
from latency.fake import FakeDevice
from latency.profiling import JOB, profile_target
from latency.samples import varied_architectures
from latency.target import load_target
from tests.latency.profiled import QUICK
from tests.latency.test_profiling import CountingDevice

HOST = load_target("host")


def test_what_no_measured_network_has_is_measured_next():
    rows = [{"a:macs": 10.0 + index, "b:macs": 5.0 + index % 3} for index in range(20)]
    candidates = [*rows, {"a:macs": 12.0, "c:macs": 5.0}, *rows]
    assert most_telling(candidates, rows, [1.0 + index / 10 for index in range(20)], 1) == [20]


def test_one_of_two_alike_is_enough():
    rows = [{"a:macs": 10.0 + index} for index in range(20)]
    alike = {"a:macs": 12.0, "c:macs": 5.0}
    candidates = [alike, alike, {"a:macs": 12.0, "d:macs": 2.0}]
    assert sorted(most_telling(candidates, rows, [1.0] * 20, 2)) in ([0, 2], [1, 2])


def test_every_candidate_is_chosen_once():
    source = np.random.default_rng(0)
    rows = [{"a:macs": value, "b:out": value**2} for value in source.uniform(1, 9, 30)]
    assert sorted(most_telling(rows, rows, [1.0] * 30, 50)) == list(range(30))


def test_networks_come_in_order_first_and_each_once():
    architectures = list(islice(varied_architectures(0), POOL + 60))
    queue = Queue(iter(architectures), in_order=24, nchwc_block=8, precision="fp32")
    first = queue.take(12, [])
    assert first == architectures[:12]
    measured = [(one, 1.0) for one in first]
    assert queue.take(30, measured) == architectures[12:24]
    measured = [(one, 1.0) for one in architectures[:24]]
    chosen = queue.take(12, measured)
    assert len({one.fingerprint for one in chosen}) == 12
    assert not {one.fingerprint for one in chosen} & {one.fingerprint for one in architectures[:24]}
    assert chosen != architectures[24:36]


def test_a_queue_ends_with_its_networks():
    architectures = list(islice(varied_architectures(0), 30))
    queue = Queue(architectures, in_order=12, nchwc_block=8, precision="fp32")
    measured = [(one, 1.0) for one in queue.take(12, [])]
    assert len(queue.take(30, measured)) == 18
    assert queue.take(30, measured) == []


@pytest.mark.parametrize("lasts", [JOB, 2 * JOB])
def test_an_interrupted_profile_chooses_what_it_would_have_chosen(tmp_path: Path, lasts: int):
    def profile(folder: Path, device: FakeDevice):
        return profile_target(
            HOST,
            varied_architectures(0),
            networks=36,
            in_order=12,
            device=device,
            effort=QUICK,
            folder=folder,
        )

    with pytest.raises(DeviceError, match="cable"):
        profile(tmp_path / "interrupted", CountingDevice(lasts=lasts))
    again = profile(tmp_path / "interrupted", CountingDevice())
    assert again == profile(tmp_path / "at-once", CountingDevice())
