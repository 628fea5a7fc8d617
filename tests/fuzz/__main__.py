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

os.environ["OMP_NUM_THREADS"] = "1"  # a fork has none of its parent's threads, and would wait for them
os.environ["HARDSPIKE_KERNEL"] = "torch"  # a compiler would be started, which is what is watched for

from tests.fuzz import corpus, machine
from tests.fuzz.kinds import KINDS


def main() -> int:
    """Exit status 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("kinds", nargs="?", default=",".join(KINDS), help=f"comma-separated: {', '.join(KINDS)}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=2000, help="inputs, of all kinds together")
    parser.add_argument("--rounds", type=int, default=1, help="in which every kind has its turn")
    parser.add_argument("--first", type=int, default=1, help="round to begin with, where an earlier call ended")
    parser.add_argument("--keep", action="store_true", help="keep the first input of every fault in the corpus")
    parser.add_argument("--one", type=int, help="make this input, use it here, and leave it where it is said")
    parser.add_argument("--corpus", action="store_true", help="try what the corpus holds as well")
    options = parser.parse_args()
    memory = Path("/dev/shm")  # small files by the hundred a second
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if os.access(memory, os.W_OK) else None))
    os.environ["HARDSPIKE_CACHE"] = str(folder / "cache")
    os.environ["MPLCONFIGDIR"] = str(folder / "cache" / "matplotlib")
    if options.one is not None:
        machine.prepare(folder)
        kind = KINDS[options.kinds]
        path = kind.make(random.Random(f"{options.kinds}/{options.seed}/{options.one}"), folder / "work")
        print(path)
        kind.use(path)
        return 0
    try:
        total: Counter = replayed(folder) if options.corpus else Counter()
        for number in range(options.first, options.rounds + 1):
            for name, (done, until) in shares(options.kinds.split(","), options.count, number, options.rounds).items():
                total += campaign(name, options.seed, range(done, until), folder, options.keep)
            if number < options.rounds:
                print(f"round {number} of {options.rounds}: {_said(options.seed, total)}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(_said(options.seed, total), flush=True)
    return int(any(total[fault] for fault in machine.FAULTS))


def shares(names: list[str], count: int, number: int, rounds: int) -> dict[str, tuple[int, int]]:
    """Kind -> its first input of round `number` (from 1) of `rounds`, and the first one after it."""
    whole = sum(KINDS[name].share for name in names)
    ends = [round(count * sum(KINDS[name].share for name in names[: i + 1]) / whole) for i in range(len(names))]
    counts = {name: end - begin for name, begin, end in zip(names, [0, *ends], ends, strict=False)}
    return {name: (own * (number - 1) // rounds, own * number // rounds) for name, own in counts.items()}


def _said(seed: int, total: Counter) -> str:
    faults = sum(total[fault] for fault in machine.FAULTS)
    return f"seed {seed}: {sum(total.values()) - total['skipped']} inputs: {_counts(total)}; {faults} faults"


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


def campaign(name: str, seed: int, numbers: range, folder: Path, keep: bool = False) -> Counter:
    """Some inputs of one kind; prints a line, and one for each fault and place."""
    began, counts, places = time.monotonic(), Counter(), defaultdict(list)
    slowest = machine.Outcome(0, "ok")
    for outcome in machine.run(name, seed, iter(numbers), folder):
        counts[outcome.result] += 1
        slowest = max(slowest, outcome, key=lambda one: one.seconds)
        if outcome.result in (*machine.FAULTS, "memory", "skipped"):
            places[outcome.result, outcome.place].append(outcome)
    print(
        f"{name:8} {len(numbers)} inputs in {time.monotonic() - began:.0f} s: {_counts(counts)}; slowest: "
        f"{slowest.number}, {slowest.seconds:.1f} s",
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
