"""Full disks, kills and two at once: every final file is loadable, and nothing is left over.

    make faults                       everything; with 200 kills some half an hour
    python -m tests.fuzz.faults disk  one of disk, kills, concurrency
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a fork has none of its parent's threads, and would wait for them

from tests.fuzz.forks import Problem, command, forked, unloadable
from tests.fuzz.full_disks import SIZES, full_disks
from tests.fuzz.kills import TINY, kills


def concurrency() -> Iterator[Problem]:
    """Two runs into one folder: one wins, the other is refused."""
    folder = Path(tempfile.mkdtemp(prefix="two-"))
    os.environ["HARDSPIKE_CACHE"] = str(folder / "cache")
    try:
        forked(command("trainer", "data", "digits", "--steps", "3", "--out", folder / "warm.npz"))
        children = []
        for number in (1, 2):
            child = os.fork()
            if child == 0:
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, 1)
                os.dup2(null, 2)
                os._exit(command("trainer", "fit", *TINY, "--seed", number, "--out", folder / "run")())
            children.append(child)
        statuses = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
        if statuses[0] != 0 or statuses[1] not in (1, 2):
            yield f"two fits into one folder end with {statuses}"
        seeds_kept = {_seed(folder / "run" / name) for name in ("best.pt", "last.pt")}
        if len(seeds_kept) != 1 or unloadable(folder / "run"):
            yield f"two fits into one folder: files of runs {seeds_kept}; {unloadable(folder / 'run')}"
    finally:
        shutil.rmtree(folder)


def _seed(path: Path) -> int:
    from trainer import checkpoint

    return checkpoint.load(path).config.seed


def main() -> int:
    """Exit status 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.faults", description=__doc__)
    parser.add_argument("what", nargs="*", default=["disk", "kills", "concurrency"])
    parser.add_argument("--sizes", type=int, default=SIZES, help="of the disk, for each writer")
    parser.add_argument("--only", default="", help="names of writers, or of what is killed, joined by commas")
    parser.add_argument("--kills", type=int, default=200, help="of all commands together")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = 0
    for what in options.what:
        parts = {
            "disk": lambda: full_disks(options.sizes, options.only),
            "kills": lambda: kills(options.kills, options.seed, options.only),
            "concurrency": concurrency,
        }[what]
        began, problems = time.monotonic(), []
        for problem in parts():
            problems.append(problem)
            print(f"    {problem}", flush=True)
        found += len(problems)
        print(f"{what}: {len(problems)} problems in {time.monotonic() - began:.0f} s", flush=True)
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
