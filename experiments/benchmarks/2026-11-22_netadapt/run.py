"""NetAdapt against one width multiplier: accuracy at equal measured latency, and latency at equal accuracy.

Both start from the same checkpoint and end with the same long fine-tune; the multiplier's is longer by as many images as the
networks that lead to NetAdapt's result have seen in their short ones. All results of a seed are then measured once more, side by
side and in turns, so that their latencies compare. Runs that were interrupted go on.

    python experiments/benchmarks/2026-11-22_netadapt/run.py network.pt --data ../shared/data/cifar10 --out /tmp/netadapt
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from latency.settings import Effort
from latency.target import load_target
from nas.checkpoint import load_checkpoint
from nas.deployment import onnx_model

HERE = Path(__file__).parent
BUDGETS = (0.75, 0.5, 0.35)  # of the start's latency
EFFORT = Effort(processes=3, slices=12, limit_s=20.0)


def main() -> None:
    arguments = parsed()
    lines = []
    for seed in range(arguments.seeds):
        results = [
            {"seed": seed, "budget_ratio": budget, **result}
            for budget in BUDGETS
            for result in compared(arguments, budget, seed)
        ]
        lines += measured(arguments, results)
    (HERE / "result.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for line in lines:
        print(
            f"{line['method']:>9} {line['budget_ratio']:.2f} seed {line['seed']}: {line['ms']:.4g} ms, {line['accuracy']:.2%}"
        )


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--target", default="host")
    parser.add_argument("--out", type=Path, default=Path("runs/netadapt-benchmark"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--short-images", type=int, default=2000)
    parser.add_argument("--epochs", type=float, default=10.0)
    return parser.parse_args()


def compared(arguments: argparse.Namespace, budget: float, seed: int) -> list[dict[str, Any]]:
    """Both methods' results at one budget."""
    trimmed = netadapt(arguments, budget, seed, "netadapt", epochs=arguments.epochs)
    if trimmed is None:
        return []
    images = load_checkpoint(Path(trimmed["checkpoint"])).metrics["images"]
    extra = arguments.epochs * trimmed["step"] * arguments.short_images / images
    scaled = netadapt(arguments, budget, seed, "uniform", epochs=arguments.epochs + extra)
    return [result for result in (trimmed, scaled) if result is not None]


def netadapt(
    arguments: argparse.Namespace, budget: float, seed: int, method: str, *, epochs: float
) -> dict[str, Any] | None:
    """The `--json` result of `nas netadapt`; None where it says that the budget cannot be reached."""
    options = {
        "--data": arguments.data,
        "--target": arguments.target,
        "--budget-ratio": budget,
        "--method": method,
        "--seed": seed,
        "--epochs": epochs,
        "--short-images": arguments.short_images,
        "--out": arguments.out / f"{method}-{budget:g}-{seed}",
    }
    flags = [str(part) for pair in options.items() for part in pair]
    command = [sys.executable, "-c", "from nas.cli import main; main()", "netadapt", arguments.checkpoint, *flags]
    done = subprocess.run([*command, "--json"], check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode == 2:
        return None
    done.check_returncode()
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measured(arguments: argparse.Namespace, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A seed's results with their latencies from one interleaved measurement, and the start's."""
    target = load_target(arguments.target)
    paths = [Path(arguments.checkpoint), *(Path(result["checkpoint"]) for result in results)]
    models = [onnx_model(load_checkpoint(path)) for path in paths]
    start, *timings = target.open().measure(models, settings=target.settings, effort=EFFORT)
    keys = (
        "seed",
        "budget_ratio",
        "method",
        "accuracy",
        "validation_accuracy",
        "start_accuracy",
        "budget_ms",
        "low_ms",
        "high_ms",
    )
    return [
        {
            **{key: result[key] for key in keys},
            "ms": timing.low_ms,
            "start_ms": start.low_ms,
            "stable": timing.stable and start.stable,
            "steps": [
                {key: step[key] for key in ("accuracy", "predicted_ms", "proposals", "stopped", "audit", "seconds")}
                for step in result["steps"]
            ],
        }
        for result, timing in zip(results, timings, strict=True)
    ]


if __name__ == "__main__":
    main()
