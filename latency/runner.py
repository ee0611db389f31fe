"""Runs on the device: measures, profiles, optimises and evaluates ONNX models, and prints what it finds as JSON lines.

This one file needs Python >= 3.8, numpy and onnxruntime, and nothing of ours: it is copied into a folder on the device
together with ``job.json`` and the models, and started as ``python3 runner.py FOLDER``. Every line on stdout is one event
``{"event": …}``; slices are printed as they are taken, so a connection that drops loses nothing that was finished. The last
event is ``end``, or ``error`` with a reason. ``job.json`` holds ``mode`` (one of `MODES`), ``models`` (file names),
``settings`` (the fields of `latency.settings.RuntimeSettings`) and what the mode needs besides.

How it measures: all sessions are open side by side; in shuffled rounds each network gets a short slice of runs whose first
is dropped (it refills the caches). A short arithmetic probe before and after each slice tells whether the core ran at full
speed, the thread's own clock whether the core was taken away during a run. A network is done when two disjoint halves of its
slices agree, or when its share of device time is used up.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import platform
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Sequence  # noqa: UP035 - Python 3.8

Job = Any  # what json.load gives; checked by the side that wrote it

SHORT_SLICE_NS, LONG_SLICE_NS = 14_000_000, 40_000_000
LONG_RUN_NS = 1_500_000  # a network slower than this gets long slices
INTERRUPTED = 0.01  # share of a run during which the core did something else
DISTURBED = 1.15  # a probe this much slower than the network's fastest one: the core was slowed down or taken away


def low_ns(slices: Sequence[Sequence[int]], probes: Sequence[int]) -> int:
    """The run time that stands for a network: lower quartile of the slices' fastest runs, disturbed slices left out.

    The fastest run of a slice drops what disturbed the others; the quartile over slices, unlike the fastest of all, does
    not fall as more slices are taken, so networks measured for longer are not favoured. Of 26 estimates (minimum, quantiles
    and medians of runs, of slices, gated or not) it was the most reproducible between pairs of processes: 95 % of repetitions
    agreed within 0.5 % on a quiet core and 0.7 % beside a process that took half of it; the minimum within 0.7 % on both, the
    median within 0.9 % and 1.4 %. The disturbance moved it by 0.2 %, the minimum by 0.7 %.

    Args:
        slices: for each slice the nanoseconds of its uninterrupted runs, of which there must be some in at least one slice.
        probes: for each slice the nanoseconds of the slower of its two arithmetic probes.
    """
    usable = [(min(runs), probe) for runs, probe in zip(slices, probes) if runs]  # noqa: B905 - Python 3.8
    limit = DISTURBED * min(probe for _, probe in usable)
    fastest = sorted(ns for ns, probe in usable if probe <= limit)
    if 4 * len(fastest) < len(usable):  # the probe was lucky once: it tells nothing about the other slices
        fastest = sorted(ns for ns, _ in usable)
    return fastest[len(fastest) // 4]


def half_difference(slices: Sequence[Sequence[int]], probes: Sequence[int]) -> float:
    """How much halves of the slices disagree, relative to the smaller: the worse of even/odd and early/late halves.

    Slices without an uninterrupted run do not count; with fewer than four others it is infinite.
    """
    usable = [(runs, probe) for runs, probe in zip(slices, probes) if runs]  # noqa: B905 - Python 3.8
    if len(usable) < 4:
        return float("inf")
    middle = len(usable) // 2
    worst = 0.0
    for one, other in ((slice(0, None, 2), slice(1, None, 2)), (slice(0, middle), slice(middle, None))):
        a, b = (
            low_ns([runs for runs, _ in usable[half]], [probe for _, probe in usable[half]]) for half in (one, other)
        )
        worst = max(worst, abs(a - b) / min(a, b))
    return worst


def probe_ns() -> int:
    """Nanoseconds of a fixed piece of integer arithmetic (about 20 µs): depends on nothing but the core's momentary speed."""
    start = time.perf_counter_ns()
    sum(range(2000))
    return time.perf_counter_ns() - start


def emit(event: str, **fields: object) -> None:
    """Prints one event as one line, at once."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def read_text(path: str) -> str | None:
    """A small system file's text, or None where there is none or it may not be read."""
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def cpu_facts() -> tuple[str, list[str]]:
    """The processor's name and its feature flags, as the system tells them."""
    parts: dict[str, str] = {}
    for line in (read_text("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        parts.setdefault(key.strip().lower(), value.strip())
    cpu = parts.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in parts:  # virtual machines hide the model's name, but not its number
        cpu += f" (family {parts['cpu family']}, model {parts.get('model')}, stepping {parts.get('stepping')})"
    if platform.machine() == "aarch64" and ("vendor_id" in parts or parts.get("cpu implementer") in ("0x0", "0x00")):
        return "emulated aarch64", []  # qemu shows the host's processor, newer ones an ARM of the implementer 0
    if "cpu part" in parts:  # ARM: implementer and part number name the core
        cpu += f" (implementer {parts.get('cpu implementer')}, part {parts['cpu part']})"
    return cpu, sorted((parts.get("flags") or parts.get("features") or "").split())


def frequency_khz(core: int) -> int | None:
    """Highest frequency of a core in kHz, or None where the system has no frequency driver (most virtual machines)."""
    text = read_text(f"/sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq")
    return int(text) if text and text.isdigit() else None


def memory_total_bytes() -> int | None:
    """Physical memory in bytes, or None where it cannot be asked for."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def resident_bytes(field: str) -> int | None:
    """A memory figure of this process (``VmRSS`` now, ``VmHWM`` peak) in bytes, or None outside Linux."""
    for line in (read_text("/proc/self/status") or "").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return None


def load_average() -> float | None:
    """Mean number of runnable processes over the last minute, or None where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def pin(affinity: str | list[int], threads: int) -> list[int] | None:
    """Binds this process to cores; returns them, or None where that is not asked for or not possible.

    ``auto`` takes as many cores as threads: the fastest, and of equal ones the last (the first serves most interrupts).
    """
    if affinity == "none" or not hasattr(os, "sched_setaffinity"):
        return None
    if isinstance(affinity, str):
        cores = sorted(os.sched_getaffinity(0), key=lambda core: (frequency_khz(core) or 0, core))[-threads:]
    else:
        cores = affinity
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        raise SystemExit(f"cannot bind to the cores {cores}: {error.strerror}") from error
    return sorted(cores)


def session_options(settings: Job) -> Any:
    """ONNX Runtime's options for `settings`: nodes one after another; threads that wait do not spin after a run."""
    import onnxruntime

    levels = {"disabled": "DISABLE_ALL", "basic": "ENABLE_BASIC", "extended": "ENABLE_EXTENDED", "all": "ENABLE_ALL"}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings["threads"]
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, "ORT_" + levels[settings["graph_level"]]
    )
    options.log_severity_level = 3  # errors only; they also come back as exceptions
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def open_session(path: Path, settings: Job, options: Any = None) -> Any:
    """An inference session for the model at `path` on the asked provider, with the CPU for the ops that it lacks."""
    import onnxruntime

    available = {name.lower().replace("executionprovider", ""): name for name in onnxruntime.get_available_providers()}
    wanted = settings["provider"]
    if wanted not in available:
        raise SystemExit(f"the runtime here has no provider {wanted!r}; it has {', '.join(sorted(available))}")
    providers = [available[name] for name in dict.fromkeys((wanted, "cpu"))]
    return onnxruntime.InferenceSession(str(path), options or session_options(settings), providers=providers)


def random_inputs(session: Any, seed: int) -> dict[str, Any]:
    """Seeded inputs of each type and shape that the model asks for; free dimensions are 1."""
    import numpy as np

    source = np.random.RandomState(seed)
    inputs = {}
    for wanted in session.get_inputs():
        shape = [size if isinstance(size, int) and size > 0 else 1 for size in wanted.shape]
        kind = {"float": "float32", "double": "float64"}.get(wanted.type[7:-1], wanted.type[7:-1])  # of "tensor(float)"
        if kind.startswith("float"):
            inputs[wanted.name] = source.standard_normal(shape).astype(kind)
        elif kind in ("uint8", "int8", "int32", "int64"):
            low = -128 if kind == "int8" else 0
            inputs[wanted.name] = source.randint(low, low + 256, shape).astype(kind)
        else:
            raise SystemExit(f"input {wanted.name!r} has type {wanted.type}, for which no values can be made up")
    return inputs


class Network:
    """One open model with its inputs and outputs bound in place, and the slices taken of it so far."""

    def __init__(self, index: int, path: Path, settings: Job) -> None:
        self.index = index
        self.session = open_session(path, settings)
        self.run = self.session.run_with_iobinding
        self.binding = self._bind()
        alone = settings["provider"] == "cpu" and settings["threads"] == 1  # otherwise the thread waits of itself
        self.watched = alone and time.get_clock_info("thread_time").resolution < 1e-6
        self.slices: list[list[int]] = []
        self.probes: list[int] = []
        self.spent_ns = 0
        self.run(self.binding)
        start = time.perf_counter_ns()
        self.run(self.binding)
        self.estimate_ns = time.perf_counter_ns() - start

    def _bind(self) -> Any:
        import onnxruntime

        binding = self.session.io_binding()
        for name, array in random_inputs(self.session, seed=0).items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        names = [output.name for output in self.session.get_outputs()]
        for name in names:
            binding.bind_output(name)
        self.run(binding)
        for name, value in zip(names, binding.get_outputs()):  # noqa: B905 - from now on written in place
            binding.bind_ortvalue_output(name, value)
        return binding

    def take_slice(self) -> dict[str, object]:
        """Runs for one slice; returns what is told of it.

        ``ns`` are the nanoseconds of all runs but the first; ``interrupted`` the positions of those during which the core was
        taken away, or during the run before (others have used the caches); ``probe_ns`` the slower of the arithmetic probes.
        """
        clock, own_clock, run, binding = time.perf_counter_ns, time.thread_time_ns, self.run, self.binding
        begin = clock()
        end = begin + (LONG_SLICE_NS if self.estimate_ns > LONG_RUN_NS else SHORT_SLICE_NS)
        before = min(probe_ns(), probe_ns())
        every: list[int] = []
        taken: list[bool] = []
        now, own = clock(), own_clock()
        while now < end or len(every) < 2:
            last, last_own = now, own
            start = clock()
            run(binding)
            now, own = clock(), own_clock()
            every.append(now - start)
            taken.append(self.watched and now - last - (own - last_own) > INTERRUPTED * (now - last) + 1000)
        runs = every[1:]
        interrupted = [position for position in range(len(runs)) if taken[position] or taken[position + 1]]
        probe = max(before, min(probe_ns(), probe_ns()))
        self.slices.append([ns for position, ns in enumerate(runs) if position not in interrupted])
        self.probes.append(probe)
        self.estimate_ns = min(self.estimate_ns, *runs)
        self.spent_ns += clock() - begin
        return {"ns": runs, "interrupted": interrupted, "probe_ns": probe}

    def finished(self, effort: Job) -> bool:
        """Whether it has been measured well enough, or for as long as it may."""
        if self.spent_ns >= 1e9 * float(effort["limit_s"]):
            return True
        if len(self.slices) < effort["slices"]:
            return False
        return half_difference(self.slices, self.probes) <= float(effort["tolerance"])


def measure(folder: Path, job: Job) -> dict[str, object]:
    """Times all models of the job, interleaved: one ``opened`` event a model, one ``slice`` event a slice."""
    settings, effort = job["settings"], job["effort"]
    shuffled = random.Random(job["seed"])
    order = list(enumerate(job["models"]))
    shuffled.shuffle(order)
    emit("started", cores=pin(settings["affinity"], settings["threads"]), load=load_average())
    networks = []
    for index, name in order:
        networks.append(Network(index, folder / name, settings))
        emit("opened", model=index)
    gc.collect()
    gc.disable()
    while networks:
        shuffled.shuffle(networks)
        for network in networks:
            emit("slice", model=network.index, **network.take_slice())
        networks = [network for network in networks if not network.finished(effort)]
    return {"load": load_average()}


def memory(folder: Path, job: Job) -> dict[str, object]:
    """Peak resident memory of opening and running one model, above a process that has only loaded the runtime."""
    import onnxruntime  # noqa: F401 - loaded before the first look

    before = resident_bytes("VmRSS")
    Network(0, folder / job["models"][0], job["settings"])
    peak = resident_bytes("VmHWM")
    return {"peak_bytes": peak - before if peak and before else None}


def profile(folder: Path, job: Job) -> dict[str, object]:
    """Times every node of one model with ONNX Runtime's own profiler, which inflates each node by some microseconds."""
    settings = job["settings"]
    pin(settings["affinity"], settings["threads"])
    options = session_options(settings)
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = open_session(folder / job["models"][0], settings, options)
    inputs = random_inputs(session, seed=0)
    for _ in range(job["runs"]):
        session.run(None, inputs)
    trace = Path(session.end_profiling()).read_bytes()
    return {"trace": base64.b64encode(trace).decode()}


def optimize(folder: Path, job: Job) -> dict[str, object]:
    """The graph that the runtime would execute, as the runtime saves it."""
    settings = job["settings"]
    options = session_options(settings)
    path = folder / "optimized.onnx"
    options.optimized_model_filepath = str(path)
    open_session(folder / job["models"][0], settings, options)
    return {"model": base64.b64encode(path.read_bytes()).decode()}


def outputs(folder: Path, job: Job) -> dict[str, object]:
    """Runs one model on the job's ``inputs``, each a file of raw numbers; returns its outputs."""
    import numpy as np

    settings = job["settings"]
    pin(settings["affinity"], settings["threads"])
    session = open_session(folder / job["models"][0], settings)
    inputs = {
        one["name"]: np.fromfile(str(folder / one["file"]), one["dtype"]).reshape(one["shape"]) for one in job["inputs"]
    }
    names = [output.name for output in session.get_outputs()]
    found = []
    for name, array in zip(names, session.run(names, inputs)):  # noqa: B905 - Python 3.8
        data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
        found.append({"name": name, "dtype": str(array.dtype), "shape": list(array.shape), "data": data})
    return {"outputs": found}


def describe(folder: Path, job: Job) -> dict[str, object]:
    """What identifies the device and its runtime."""
    import onnxruntime

    cpu, flags = cpu_facts()
    return {
        "machine": platform.machine(),
        "cpu": cpu,
        "flags": flags,
        "cores": os.cpu_count(),
        "governor": read_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "max_frequency_khz": max((frequency_khz(core) or 0 for core in range(os.cpu_count() or 1)), default=0) or None,
        "memory_bytes": memory_total_bytes(),
        "system": platform.platform(),
        "runtime": onnxruntime.__version__,
        "providers": onnxruntime.get_available_providers(),
    }


MODES = {f.__name__: f for f in (describe, measure, memory, profile, optimize, outputs)}


def main(folder: Path) -> int:
    """Does the job in `folder`; returns the exit code. Whatever goes wrong is told in an ``error`` event."""
    os.environ["ORT_DISABLE_TELEMETRY"] = (
        "1"  # from 1.29 on the runtime would report to its maker from threads of its own
    )
    try:
        job = json.loads((folder / "job.json").read_text())
        result = MODES[job["mode"]](folder, job)
    except BrokenPipeError:  # nobody listens any more, so nobody will clean up either
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)
    except SystemExit as stop:
        emit("error", reason=str(stop))
        return 1
    except Exception as error:  # the reason must reach the other side, whatever it is
        emit("error", reason=f"{type(error).__name__}: {' '.join(str(error).split())}")
        return 1
    emit("end", **result)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
