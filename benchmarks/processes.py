"""Training by several processes against one, on the digits' default network.

    python -m benchmarks.processes        # about two minutes on two cores

Every run is a `trainer fit` of its own, through torchrun where it has more than one process; what counts are the
seconds that its later epochs trained (the first one warms up). Rounds are interleaved; ratios are of the same round.
"""

import csv
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from hardspike import HardspikeError, print_table, progress

EPOCHS = 4
VARIANTS = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes, 1 thread each": (2, 1)}


def seconds(processes: int, threads: int, method: str) -> float:
    """Median of the seconds that an epoch trains.

    Raises:
        HardspikeError: the run failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", *(("torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
                                            "-m") if processes > 1 else ()), "trainer", "fit", "--method", method,
                   "--epochs", str(EPOCHS), "--device", "cpu", "--threads", str(threads), "--out", f"{folder}/run"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
        if done.returncode:
            raise HardspikeError(f"{' '.join(command)}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        with open(f"{folder}/run/metrics.csv", newline="") as file:
            return statistics.median(float(row["train_seconds"]) for row in list(csv.DictReader(file))[1:])


def measure(rounds: int = 3, method: str = "sast") -> list[dict]:
    """One row a variant: seconds of an epoch and its speed against one process with one thread."""
    found: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in progress(range(rounds), "rounds"):
        for name, (processes, threads) in VARIANTS.items():
            found[name].append(seconds(processes, threads, method))
    one = next(iter(found.values()))
    rows = []
    for name, mine in found.items():
        speed = sorted(a / b for a, b in zip(one, mine, strict=True))
        rows.append({"run": name, "epoch, s": statistics.median(mine), "speed / 1 process": statistics.median(speed),
                     "least": speed[0], "most": speed[-1]})
    return rows


if __name__ == "__main__":
    print_table(measure(), "training epochs, SAST on the digits")
