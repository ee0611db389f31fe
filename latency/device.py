"""The seam to hardware: what every device can do, and the half of it that all devices with a runner share."""

import base64
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from latency import runner
from latency.errors import DeviceError, DeviceUnreachable
from latency.layout import nchwc_block, probe_model
from latency.lock import DeviceLock
from latency.provenance import Provenance
from latency.settings import Effort, RuntimeSettings
from latency.timing import Slice, Timing, now, quiet_probe

LACKING_OP = re.compile(
    r"([\w.:]+)\(-?\d+\) is not a registered function/op|No Op registered for ([\w.:]+)"
    r"|Could not find an implementation for ([\w.:]+)\("
)
NEWER_OPSET = re.compile(r"Opset (\d+) is under development.* till opset (\d+)")
PATIENCE = 3  # times the limit of device time that a network gets while the device is slower than its full speed
NEARLY = 0.9  # of a network's time in a process: what it takes beside its runs is not known

OnSlice = Callable[[int, Slice], None]
OnRestart = Callable[[], None]
Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class OpTime:
    """Time of one executed node by the runtime's profiler.

    Attributes:
        name: the node's name in the optimised graph.
        op: its type.
        ms: median milliseconds of a run; profiling adds some microseconds to each node.
    """

    name: str
    op: str
    ms: float


class Device(Protocol):
    """Somewhere networks run. All methods raise `DeviceError` if it cannot be reached or cannot run what it was given."""

    @property
    def name(self) -> str:
        """Which device this is; jobs on devices of one name take turns."""

    def describe(self) -> Provenance:
        """What identifies the device and its runtime."""

    def reserve(self, purpose: str, *, on_wait: Callable[[str], None] | None = None) -> AbstractContextManager[None]:
        """Keeps all others off the device inside the ``with``.

        Args:
            purpose: what it is wanted for, shown to others that wait.
            on_wait: hears what one waits for, whenever one does: who has the device, or that a broken connection is made again.
        """

    def measure(
        self,
        models: Sequence[bytes],
        *,
        settings: RuntimeSettings,
        effort: Effort = ...,
        on_slice: OnSlice | None = None,
        on_restart: OnRestart | None = None,
    ) -> list[Timing]:
        """Times several ONNX models, interleaved, so that they can be compared with each other.

        Args:
            models: serialised ONNX models; inputs are made up from their types and shapes, in which an open dimension is 1
                (`latency.foreign` puts sizes in their place).
            settings: how they are run.
            effort: how long they are measured.
            on_slice: called with a model's position and a slice of it as soon as it was taken.
            on_restart: called when all slices so far are dropped and all models measured anew: the device was hot, or another one
                takes its place.

        Returns:
            One timing a model, in the order of `models`; unstable ones are returned too, and say so.
        """

    def memory(self, model: bytes, *, settings: RuntimeSettings) -> int | None:
        """Peak resident bytes of loading and running a model, above a process with the runtime alone; None where unknown."""

    def profile(self, model: bytes, *, settings: RuntimeSettings, runs: int = ...) -> tuple[OpTime, ...]:
        """Time of each executed node in the order of execution, for people: inflated, no basis to fit on."""

    def optimize(self, model: bytes, *, settings: RuntimeSettings) -> bytes:
        """The ONNX model as the runtime would execute it."""

    def outputs(self, model: bytes, inputs: Arrays, *, settings: RuntimeSettings) -> dict[str, np.ndarray[Any, Any]]:
        """Runs a model once on the given inputs."""


class RunnerDevice(ABC):
    """A `Device` that copies `latency.runner` somewhere and reads the lines it prints.

    A subclass says how: `_lines` puts the files into an empty folder on the device, starts ``runner.py`` on it, yields its
    lines of output as they come, and cleans up whatever happens.
    """

    def __init__(self, name: str, *, lock: str | None = None) -> None:
        self._name = name
        self._lock = DeviceLock(lock or name)
        self._provenance: Provenance | None = None

    @abstractmethod
    def _lines(self, files: Mapping[str, bytes]) -> Generator[bytes, None, None]:
        """Runs one job; raises `DeviceError` with the reason if the runner dies or falls silent."""

    def _job_files(self, job: Mapping[str, object]) -> dict[str, bytes]:
        """What the runner needs beside the models; another runner than `latency.runner` reads its job from other files."""
        return {"runner.py": Path(runner.__file__).read_bytes(), "job.json": json.dumps(job).encode()}

    def _recover(self, failures: int, error: DeviceUnreachable) -> None:
        """Called when a job was cut off for the so many-th time in a row: returns to have it tried again, or raises."""
        raise error

    def _explained(self, reason: str) -> str:
        """What the runner complains about, in words that say what to do."""
        if lacking := LACKING_OP.search(reason):
            op = lacking[lacking.lastindex or 0]
            return f"the runtime there lacks the op {op}, which the model needs: use a newer ONNX Runtime, or a model without it"
        if newer := NEWER_OPSET.search(reason):
            return (
                f"the runtime there takes models up to opset {newer[2]}, this one has {newer[1]}: use a newer ONNX Runtime, or "
                "export the model with an older opset"
            )
        return reason

    @property
    def name(self) -> str:
        return self._name

    def reserve(self, purpose: str, *, on_wait: Callable[[str], None] | None = None) -> AbstractContextManager[None]:
        return self._lock.held(purpose, on_wait=on_wait)

    def describe(self) -> Provenance:
        if self._provenance is None:
            facts = self._ask({"mode": "describe"}, {})
            block = nchwc_block(self.optimize(probe_model(), settings=RuntimeSettings()))
            self._provenance = Provenance.from_json({**facts, "flags": sorted(facts["flags"]), "nchwc_block": block})
        return self._provenance

    def measure(
        self,
        models: Sequence[bytes],
        *,
        settings: RuntimeSettings,
        effort: Effort = Effort(),  # noqa: B008 - frozen
        on_slice: OnSlice | None = None,
        on_restart: OnRestart | None = None,
    ) -> list[Timing]:
        taken: list[list[Slice]] = [[] for _ in models]
        load: float | None = None
        date, cores = now(), set[int]()
        process = passes = failures = 0
        with self.reserve("measuring"):
            while pending := [
                index for index, timing in enumerate(timings_of(taken, effort)) if not _settled(timing, passes, effort)
            ]:
                job = {
                    "mode": "measure",
                    "models": [f"{index}.onnx" for index in pending],
                    "settings": settings.as_json(),
                    "effort": {**asdict(effort), "limit_s": effort.limit_s / effort.processes},
                    "seed": process,
                }
                cut: DeviceUnreachable | None = None
                try:
                    with closing(self._events(job, {f"{index}.onnx": models[index] for index in pending})) as events:
                        for event in events:
                            if event["event"] == "slice":
                                index = pending[event["model"]]
                                interrupted = tuple(event["interrupted"])
                                taken[index].append(Slice(tuple(event["ns"]), event["probe_ns"], process, interrupted))
                                if on_slice is not None:
                                    on_slice(index, taken[index][-1])
                            elif event["event"] == "started":
                                cores.update(event["cores"] or ())
                            elif event["event"] == "end":
                                load = max(
                                    (value for value in (load, event["load"]) if value is not None), default=None
                                )
                except DeviceUnreachable as error:  # the slices that arrived count
                    cut = error
                fewest = min(sum(part.process == process for part in taken[index]) for index in pending)
                if cut is None or fewest >= effort.slices:
                    passes, failures = passes + 1, 0
                if cut is not None:
                    failures += 1
                    self._recover(failures, cut)
                process += 1
        return timings_of(taken, effort, load, date=date, cores=tuple(sorted(cores)) or None)

    def memory(self, model: bytes, *, settings: RuntimeSettings) -> int | None:
        peak: int | None = self._ask({"mode": "memory", "settings": settings.as_json()}, {"0.onnx": model})[
            "peak_bytes"
        ]
        return peak

    def profile(self, model: bytes, *, settings: RuntimeSettings, runs: int = 50) -> tuple[OpTime, ...]:
        job = {"mode": "profile", "settings": settings.as_json(), "runs": runs}
        return _op_times(base64.b64decode(self._ask(job, {"0.onnx": model})["trace"]))

    def optimize(self, model: bytes, *, settings: RuntimeSettings) -> bytes:
        answer = self._ask({"mode": "optimize", "settings": settings.as_json()}, {"0.onnx": model})
        return base64.b64decode(answer["model"])

    def outputs(self, model: bytes, inputs: Arrays, *, settings: RuntimeSettings) -> dict[str, np.ndarray[Any, Any]]:
        files, given = {"0.onnx": model}, []
        for index, (name, array) in enumerate(inputs.items()):
            files[f"input{index}.bin"] = np.ascontiguousarray(array).tobytes()
            given.append(
                {"name": name, "dtype": str(array.dtype), "shape": list(array.shape), "file": f"input{index}.bin"}
            )
        answer = self._ask({"mode": "outputs", "settings": settings.as_json(), "inputs": given}, files)
        return {
            part["name"]: np.frombuffer(base64.b64decode(part["data"]), part["dtype"]).reshape(part["shape"])
            for part in answer["outputs"]
        }

    def _ask(self, job: Mapping[str, object], files: Mapping[str, bytes]) -> dict[str, Any]:
        """Runs a job on at most one model and returns its last event."""
        models = [name for name in files if name.endswith(".onnx")]
        failures = 0
        with self.reserve(str(job["mode"])):
            while True:
                try:
                    *_, last = self._events({**job, "models": models}, files)
                except DeviceUnreachable as error:
                    failures += 1
                    self._recover(failures, error)
                else:
                    return last

    def _events(self, job: Mapping[str, object], files: Mapping[str, bytes]) -> Generator[dict[str, Any], None, None]:
        """The events of one job, of which ``end`` is the last."""
        with closing(self._lines({**files, **self._job_files(job)})) as lines:
            for line in lines:
                try:
                    event = json.loads(line)
                    kind = event["event"]
                except (ValueError, TypeError, KeyError) as error:
                    raise DeviceError(
                        f"{self.name}: expected a line of JSON from the runner, got {line[:80]!r}"
                    ) from error
                if kind == "error":
                    raise DeviceError(f"{self.name}: {self._explained(event['reason'])}")
                yield event
                if kind == "end":
                    return
        raise DeviceError(f"{self.name}: the runner stopped in the middle of a job")


def _op_times(trace: bytes) -> tuple[OpTime, ...]:
    """Median time of each node in what the runtime's profiler wrote, in the order of execution."""
    nodes: dict[tuple[str, str], list[float]] = {}
    for event in json.loads(trace):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            nodes.setdefault((name, event["args"]["op_name"]), []).append(event["dur"])
    return tuple(OpTime(name, op, float(np.median(us)) / 1e3) for (name, op), us in nodes.items())


def settled(timing: Timing, effort: Effort) -> bool:
    """Whether a network needs no further slices, as far as these tell where the measuring of several was broken off.

    A process had enough of it where it took as many slices as it had to, or about as much time as it could: slow networks have
    fewer slices. The first run of each slice, which is not kept, took its time as well.
    """
    share_s = effort.limit_s / effort.processes
    done = 0
    for process in {part.process for part in timing.slices}:
        taken = [part.ns for part in timing.slices if part.process == process]
        spent_s = sum(sum(ns) + max(ns) for ns in taken) / 1e9
        done += len(taken) >= effort.slices or spent_s >= NEARLY * share_s
    return _settled(timing, done, effort)


def timings_of(
    taken: Sequence[Sequence[Slice]],
    effort: Effort,
    load: float | None = None,
    *,
    date: str | None = None,
    cores: tuple[int, ...] | None = None,
) -> list[Timing]:
    """What the slices say of each network measured side by side; slices while the device was slower do not count."""
    probes = [part.probe_ns for slices in taken for part in slices]
    quiet_ns = min((one for one in (effort.quiet_ns, quiet_probe(probes) if probes else None) if one), default=None)
    return [Timing(tuple(slices), effort.tolerance, load, quiet_ns, date, cores) for slices in taken]


def _settled(timing: Timing, processes: int, effort: Effort) -> bool:
    """Whether a network needs no further process."""
    if processes < effort.processes:
        return False
    return timing.stable or timing.quiet_s >= effort.limit_s or timing.device_s >= PATIENCE * effort.limit_s
