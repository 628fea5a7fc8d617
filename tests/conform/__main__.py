"""The campaign's command line; see the package."""

import argparse
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.conform import corpus, grow
from tests.conform.campaign import added
from tests.conform.part import part
from tests.conform.relations import RELATIONS


def main() -> int:
    """Exit status 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.conform", description=__doc__)
    parser.add_argument("relations", nargs="?", help=f"comma-separated: {', '.join(RELATIONS)}; default: all but lava, "
                        "each at its own rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=int, default=0, help="number of the first graph")
    parser.add_argument("--minutes", type=float, default=1, help="0: until it is interrupted")
    parser.add_argument("--count", type=int, help="graphs at most")
    parser.add_argument("--kind", choices=grow.KINDS, help="graphs of this kind alone: 'lava' with the relation lava")
    parser.add_argument("--jobs", type=int, default=1, help="processes, each with every so manieth graph")
    parser.add_argument("--one", type=int, help="the graph of this number alone, through all relations")
    parser.add_argument("--keep", type=Path, help="folder for finds; default: the corpus of the tests")
    parser.add_argument("--most", type=int, default=20, help="finds after which it ends")
    options = parser.parse_args()
    if options.one is not None:
        options.start, options.count, options.jobs = options.one, 1, 1
        options.relations = options.relations or ",".join(name for name in RELATIONS if name != "lava")
        print(corpus.to_text(grow.case(options.seed, options.one, options.kind)))
    if options.jobs == 1:
        parts = [part(options, 0)]
    else:
        with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
            running = [pool.submit(part, options, job) for job in range(options.jobs)]
            with suppress(KeyboardInterrupt):  # which the parts get as well
                wait(running)
            parts = [one.result() for one in running]
    total = added(parts)
    for (name, kind), number in total.refused.most_common(40):
        print(f"    refused {number:6} {name}: {kind}")
    print(f"seed {options.seed}, from {options.start}: {total.words()}", flush=True)
    return int(bool(total.finds))


if __name__ == "__main__":
    sys.exit(main())
