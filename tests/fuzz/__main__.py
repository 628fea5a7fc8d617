"""The campaign's command line; see the package."""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HARDSPIKE_KERNEL"] = "torch"  # a compiler would be started, which is what is watched for

from tests.fuzz import corpus, machine
from tests.fuzz.kinds import KINDS


def main() -> int:
    """Exit status 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("kinds", nargs="?", default=",".join(KINDS), help=f"comma-separated: {', '.join(KINDS)}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=2000, help="inputs, of all kinds together")
    parser.add_argument("--keep", action="store_true", help="keep the first input of every fault in the corpus")
    parser.add_argument("--one", type=int, help="make this input, use it here, and leave it where it is said")
    parser.add_argument("--corpus", action="store_true", help="try what the corpus holds as well")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    os.environ["HARDSPIKE_CACHE"] = str(folder / "work")
    if options.one is not None:
        machine.prepare(folder)
        kind = KINDS[options.kinds]
        path = kind.make(random.Random(f"{options.kinds}/{options.seed}/{options.one}"), folder / "work")
        print(path)
        kind.use(path)
        return 0
    try:
        names = options.kinds.split(",")
        shares = [options.count // len(names) + (i < options.count % len(names)) for i in range(len(names))]
        total: Counter = replayed(folder) if options.corpus else Counter()
        for name, count in zip(names, shares, strict=True):
            total += campaign(name, options.seed, count, folder, options.keep)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    faults = sum(total[fault] for fault in machine.FAULTS)
    print(
        f"seed {options.seed}: {sum(total.values()) - total['skipped']} inputs: {_counts(total)}; {faults} faults",
        flush=True,
    )
    return int(faults > 0)


def replayed(folder: Path) -> Counter:
    """Everything that is kept; prints what is a fault again."""
    counts: Counter = Counter()
    for name, path in corpus.files():
        machine.prepare(folder)
        found = machine.once(name, corpus.laid_out(name, path, machine.fresh(folder / "work")), folder)
        counts[found.result] += 1
        if found.result in machine.FAULTS:
            print(f"{path.name}: {found.result} {found.place} {found.said}", flush=True)
    return counts


def campaign(name: str, seed: int, count: int, folder: Path, keep: bool = False) -> Counter:
    """The inputs of one kind; prints a line, and one for each fault and place."""
    began, counts, places = time.monotonic(), Counter(), defaultdict(list)
    slowest = machine.Outcome(0, "ok")
    for outcome in machine.run(name, seed, iter(range(count)), folder):
        counts[outcome.result] += 1
        slowest = max(slowest, outcome, key=lambda one: one.seconds)
        if outcome.result in (*machine.FAULTS, "memory", "skipped"):
            places[outcome.result, outcome.place].append(outcome)
    print(
        f"{name:8} {count} inputs in {time.monotonic() - began:.0f} s: {_counts(counts)}; slowest: {slowest.number}, "
        f"{slowest.seconds:.1f} s",
        flush=True,
    )
    for (result, place), found in sorted(places.items(), key=lambda pair: -len(pair[1])):
        print(f"    {len(found):5} {result}: {place}; first {found[0].number}: {found[0].said[:300]}", flush=True)
        if keep and result in machine.FAULTS:
            print(f"          kept: {corpus.keep(name, seed, found[0], folder)}", flush=True)
    return counts


def _counts(counts: Counter) -> str:
    return ", ".join(f"{count} {result}" for result, count in counts.most_common())


if __name__ == "__main__":
    sys.exit(main())
