"""How a network is trained fastest on this machine now: measured, since a wrong choice costs up to sixteen times.

Threads wait for each other after every operator: where networks are small, or cores are busy with other work, that costs more
than it gains. And which memory layout is faster depends on the kinds of convolution in a network.

Layouts and threads round differently, and where two are about as fast chance picks either. So what was found is remembered: on
one machine the same training gives the same weights.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from latency.host import computing
from latency.runner import cpu_facts
from nas.memory import keep_freed_memory
from nas.recipe import Recipe
from nas.run import Run
from searchspace.architecture import Architecture
from searchspace.errors import NasError
from searchspace.files import cache_folder, write_atomically
from searchspace.network import Network

ROUNDS, STEPS = 2, 2
FORMAT = 2
PROBE_IMAGES = 16  # at most: enough to keep several threads busy, few enough for large images


@dataclass(frozen=True)
class Setup:
    """What does not change what is learned, but how fast: torch's threads, and the layout of images and weights in memory."""

    threads: int
    channels_last: bool


def fastest_setup(architecture: Architecture, recipe: Recipe, *, threads: int | None = None) -> Setup:
    """The set-up that does forward and backward fastest. Restores torch's setting and random state.

    Args:
        architecture: of the network.
        recipe: its `channels_last` is kept where it says one.
        threads: that are wanted; None: one, two, four, … or as many as torch uses, whichever is fastest.
    """
    usual = torch.get_num_threads()
    counts = {usual, *(2**power for power in range(usual.bit_length()))} if threads is None else {threads}
    layouts = (True, False) if recipe.channels_last is None else (recipe.channels_last,)
    setups = [Setup(*choice) for choice in itertools.product(sorted(counts), layouts)]
    if torch.cuda.is_available():
        return Setup(threads or usual, channels_last=layouts[0])
    if len(setups) == 1:
        return setups[0]
    keep_freed_memory()
    best = dict.fromkeys(setups, float("inf"))
    with torch.random.fork_rng([]), computing("looking for the fastest threads") as give_way:
        network = Network(architecture).train()
        images = torch.randn(min(recipe.batch_size, PROBE_IMAGES), *architecture.input_shape)
        try:
            for _ in range(ROUNDS):  # taking turns, so that a passing disturbance meets all
                for setup in setups:
                    give_way()
                    torch.set_num_threads(setup.threads)
                    layout = torch.channels_last if setup.channels_last else torch.contiguous_format
                    network.to(memory_format=layout)  # type: ignore[call-overload]
                    laid_out = images.contiguous(memory_format=layout)
                    best[setup] = min(best[setup], *(_step_s(network, laid_out) for _ in range(STEPS)))
        finally:
            torch.set_num_threads(usual)
    return min(best, key=best.__getitem__)


def known_setup(architecture: Architecture, recipe: Recipe, *, threads: int | None = None) -> Setup:
    """As `fastest_setup`, measured once for a network, batch and number of threads on this machine, then remembered.

    It is kept in `$XDG_CACHE_HOME/pocketnas/setups`, by default below `~/.cache`, and may be deleted at any time.
    """
    machine = [FORMAT, cpu_facts()[0], torch.__version__, torch.get_num_threads(), torch.cuda.is_available()]
    asked = [architecture.fingerprint, min(recipe.batch_size, PROBE_IMAGES), recipe.channels_last, threads]
    key = hashlib.blake2b(json.dumps([*machine, *asked]).encode(), digest_size=16).hexdigest()
    path = cache_folder("setups") / f"{key}.json"
    known = _remembered(path)
    if known is None:
        known = fastest_setup(architecture, recipe, threads=threads)
        with contextlib.suppress(NasError):  # where nothing can be kept it is measured again
            write_atomically(path, json.dumps(dataclasses.asdict(known)).encode())
    return known


def laid_out(recipe: Recipe, architecture: Architecture, run: Run, *, what: str, threads: int) -> Recipe:
    """The recipe in the memory layout that is fastest for a network on so many threads, chosen once for what it is in the run."""
    if recipe.channels_last is not None:
        return recipe
    layout = run.once(f"channels_last {what}", lambda: known_setup(architecture, recipe, threads=threads).channels_last)
    return dataclasses.replace(recipe, channels_last=layout)


def _remembered(path: Path) -> Setup | None:
    try:
        content = json.loads(path.read_bytes())
        return Setup(int(content["threads"]), bool(content["channels_last"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _step_s(network: Network, images: torch.Tensor) -> float:
    """Seconds of one forward and backward."""
    began = time.perf_counter()
    loss = F.cross_entropy(network(images), torch.zeros(len(images), dtype=torch.int64))
    loss.backward()  # type: ignore[no-untyped-call]
    return time.perf_counter() - began
