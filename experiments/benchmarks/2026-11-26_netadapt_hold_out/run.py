"""Trimming to 0.75 once more, with proposals compared on all 5,000 held-out images in place of 1,500, against uniform scaling.

Everything else is `2026-11-25_netadapt`'s: its parts, start, latency model and sizes, which are copied from its WORK folder.

    python -m experiments.benchmarks.2026-11-26_netadapt_hold_out.run adapt   WORK --data DATA --seed 0   # and 1, 2; tune alike
    python -m experiments.benchmarks.2026-11-26_netadapt_hold_out.run measure WORK                        # a quiet minute
    python -m experiments.benchmarks.2026-11-26_netadapt_hold_out.run record  WORK --data DATA
"""

import importlib
import sys
from pathlib import Path
from typing import Any

base: Any = importlib.import_module("experiments.benchmarks.2026-11-25_netadapt.run")

every_rival = base.compared
base.BUDGETS, base.HOLD_OUT = (0.75,), 5_000
base.compared = lambda *asked: [one for one in every_rival(*asked) if one[0] in ("netadapt", "uniform")]
if "record" in sys.argv:
    base.HERE = Path(__file__).parent  # where the result goes

if __name__ == "__main__":
    base.main()
