"""Kills `nas train` (SIGKILL) at random moments, lets the same command go on, and compares what comes out, bit by bit.

    python experiments/benchmarks/2026-11-25_killed_training/run.py --work FOLDER [--kills 10] [--data digits]

One training ends undisturbed. Ten more of the same seed are each killed at a moment drawn from the first one's whole duration
(start-up, training, the writing of states and of the result included), every second one twice. Writes `result.jsonl`.
"""

import argparse
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from experiments.record import write_record
from nas.checkpoint import load_checkpoint

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--kills", type=int, default=10)
    given = parser.parse_args()
    shutil.rmtree(given.work, ignore_errors=True)
    began = time.monotonic()
    undisturbed = given.work / "undisturbed"
    subprocess.run(command(given.data, undisturbed), stdout=subprocess.DEVNULL, check=True)
    duration_s = time.monotonic() - began
    wanted = weights(undisturbed)
    lines = [{"what": "undisturbed", "seconds": round(duration_s, 1), "weights": wanted}]
    moments = random.Random(0)
    for number in range(given.kills):
        folder = given.work / f"killed-{number}"
        kills = []
        for _ in range(1 + number % 2):
            after_s = moments.uniform(0, duration_s)
            kills.append(killed(command(given.data, folder), after_s) | told(folder))
        subprocess.run(command(given.data, folder), stdout=subprocess.DEVNULL, check=True)
        lines.append({"what": "killed", "kills": kills, "same": weights(folder) == wanted})
        print(lines[-1], flush=True)
    write_record(HERE / "result.jsonl", lines)
    print(sum(bool(line.get("same")) for line in lines), "of", given.kills, "ended with the same weights")


def command(data: str, out: Path) -> list[str]:
    """A training of the record."""
    files = [str(HERE / "network.json"), "--recipe", str(HERE / "recipe.yaml")]
    return [sys.executable, "-m", "nas", "train", *files, "--data", data, "--threads", "1", "--out", str(out), "--json"]


def killed(training: list[str], after_s: float) -> dict[str, object]:
    """Start a training and kill it; tells when, and whether it was still there."""
    process = subprocess.Popen(training, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.kill()
    return {"after_s": round(after_s, 2), "by_signal": process.wait() == -signal.SIGKILL}


def told(folder: Path) -> dict[str, object]:
    """How far a run had come, by its files."""
    curve = folder / "curve.json"
    points = json.loads(curve.read_text())["curve"] if curve.exists() else []
    return {"images": points[-1]["images"] if points else 0, "finished": (folder / "result.json").exists()}


def weights(folder: Path) -> dict[str, str]:
    """Hash of all tensors of the best network and of the last one."""
    result = {}
    for name in ("network.pt", "last.pt"):
        digest = hashlib.blake2b(digest_size=16)
        for key, tensor in sorted(load_checkpoint(folder / name).state.items()):
            digest.update(key.encode() + tensor.contiguous().numpy().tobytes())
        result[name] = digest.hexdigest()
    return result


if __name__ == "__main__":
    main()
