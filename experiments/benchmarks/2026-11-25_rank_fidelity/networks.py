"""Draws the networks of this record: similar in latency on this machine, different in everything else.

    python experiments/benchmarks/2026-11-25_rank_fidelity/networks.py

Measures 72 random networks of `space.yaml` interleaved on the host and keeps the 24 nearest to their median latency, in the order
in which they were drawn, in `networks.jsonl`.
"""

import json
import statistics
from pathlib import Path

from latency.settings import Effort
from latency.target import load_target
from searchspace.architecture import lower
from searchspace.onnx_graph import random_weights, to_onnx
from searchspace.sampling import RandomSuggest
from searchspace.space import load_space

HERE = Path(__file__).parent
DRAWN, KEPT, SEED = 72, 24, 0


def main() -> None:
    space = load_space(str(HERE / "space.yaml")).adapt(channels=3, classes=10, resolution=32)
    source = RandomSuggest(SEED)
    drawn = [space.sample(source) for _ in range(DRAWN)]
    target = load_target("host")
    graphs = [lower(architecture) for architecture in drawn]
    models = [to_onnx(graph, random_weights(graph)) for graph in graphs]
    timings = target.open().measure(models, settings=target.settings, effort=Effort(processes=2, slices=6, limit_s=4.0))
    middle_ms = statistics.median(timing.low_ms for timing in timings)
    nearest = sorted(range(DRAWN), key=lambda index: abs(timings[index].low_ms / middle_ms - 1))[:KEPT]
    lines = []
    for index in sorted(nearest):
        graph = graphs[index]
        lines.append(
            {
                "drawn": index,
                "fingerprint": drawn[index].fingerprint,
                "ms": round(timings[index].low_ms, 5),
                "stable": timings[index].stable,
                "macs": graph.macs,
                "params": graph.params,
                "architecture": drawn[index].to_dict(),
            }
        )
    (HERE / "networks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for line in lines:
        print(line["drawn"], line["ms"], line["stable"], line["macs"], line["params"])


if __name__ == "__main__":
    main()
