"""What one process of a campaign does; several share its graphs."""

import argparse
import sys
from contextlib import suppress

import torch

from eval.explain.reduce import size
from tests.conform import corpus
from tests.conform.campaign import Find, Total, campaign, shrunk, trouble


def part(options: argparse.Namespace, job: int) -> Total:
    """Every `jobs`th graph from the `job`th on; finds are said, made small and kept on the way."""
    torch.set_num_threads(1)
    names = options.relations.split(",") if options.relations else None
    total, seen = Total(), set()
    numbers = range(options.start + job, sys.maxsize if options.count is None else options.start + options.count,
                    options.jobs)
    with suppress(KeyboardInterrupt):
        for find in campaign(options.seed, numbers, 60 * options.minutes, names, total, options.kind):
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
    return total


def _line(find: Find) -> str:
    return f"seed {find.seed}, number {find.number} ({find.case.kind}): {find.relation}: {find.said}"
