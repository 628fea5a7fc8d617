"""The campaign's command line; see the package."""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from eval.explain.reduce import size
from tests.conform import corpus, grow
from tests.conform.campaign import Find, Total, campaign, shrunk, trouble
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
    parser.add_argument("--one", type=int, help="the graph of this number alone, through all relations")
    parser.add_argument("--keep", type=Path, help="folder for finds; default: the corpus of the tests")
    parser.add_argument("--most", type=int, default=20, help="finds after which it ends")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = options.relations.split(",") if options.relations else None
    start, count = options.start, options.count
    if options.one is not None:
        start, count, names = options.one, 1, names or [name for name in RELATIONS if name != "lava"]
        print(corpus.to_text(grow.case(options.seed, options.one)))
    total, seen = Total(), set()
    try:
        for find in campaign(options.seed, start, 60 * options.minutes, count, names, total):
            print(_line(find), flush=True)
            if trouble(find.said) != "differs" and trouble(find.said) in seen:
                continue  # the same place in the program once more
            seen.add(trouble(find.said))
            small = shrunk(find)
            path = corpus.keep(small.case, small.relation, f"seed {find.seed}, number {find.number}: {small.said}",
                               options.keep or corpus.FOLDER)
            print(f"    {size(small.case.graph)} nodes between Input and Output, input {small.case.frames.shape}: "
                  f"{small.said}; {path}", flush=True)
            if len(total.finds) >= options.most:
                break
    except KeyboardInterrupt:
        pass
    for (name, kind), number in total.refused.most_common(40):
        print(f"    refused {number:6} {name}: {kind}")
    print(f"seed {options.seed}, from {start}: {total.words()}", flush=True)
    return int(bool(total.finds))


def _line(find: Find) -> str:
    return f"seed {find.seed}, number {find.number} ({find.case.kind}): {find.relation}: {find.said}"


if __name__ == "__main__":
    sys.exit(main())
