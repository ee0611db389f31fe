"""Makes `table.jsonl` of the parts that `make_table.py` wrote, with predicted milliseconds.

python experiments/benchmarks/2026-11-24_sampler_benchmark/merge_table.py runs/sampler_benchmark/*of*.jsonl
"""

import json
import sys
from pathlib import Path

from make_table import HERE, load_benchmark_space

from latency.model import LatencyModel
from searchspace.sampling import FixedSuggest


def main() -> None:
    space, model = load_benchmark_space(), LatencyModel.load(HERE / "latency_model.json")
    rows = {}
    for path in sys.argv[1:]:
        for line in Path(path).read_text().splitlines():
            row = json.loads(line)
            row["predicted_ms"] = round(model.predict_ms(space.sample(FixedSuggest(row["answers"]))), 6)
            rows[row["fingerprint"], row["seed"]] = row
    (HERE / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows.values()))


if __name__ == "__main__":
    main()
