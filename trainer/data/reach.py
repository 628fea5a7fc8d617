"""How far recordings reach: the question about sensor and window, which are options and not guessed from files. One hot
pixel more, or one longer recording, would change every frame."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from hardspike import UsageError, few
from trainer.data.config import LARGEST_SENSOR, DataConfig
from trainer.data.options import proposal

__all__ = ["SECONDS", "UNITS", "Reach", "question", "spread"]

UNITS = {"microseconds": "t in microseconds is expected: seconds times 1e6, milliseconds times 1000",
         "seconds": "times with fractions are seconds, whole ones microseconds: divide milliseconds by 1000"}
"""Unit of a source's times -> how to come to it."""
LEAST, SECONDS = 20, 10.0
"""So many recordings are looked at in any case, and more of them for so long."""
LONG = 60_000_000
"""From so many us on, a recording is likelier to be in another unit."""


@dataclass
class Reach:
    """What recordings take up: `rows` and `columns` of pixels, `longest` us; `looked` of `count` were looked at."""

    count: int
    rows: int = 0
    columns: int = 0
    longest: int = 0
    looked: int = 0

    def add(self, rows: int, columns: int, length: int) -> None:
        """One recording more."""
        self.rows, self.columns = max(self.rows, rows), max(self.columns, columns)
        self.longest, self.looked = max(self.longest, length), self.looked + 1


def spread(count: int, seconds: float = SECONDS) -> Iterator[int]:
    """All whole numbers below `count`; first some that are spread evenly, then the others until `seconds` are over."""
    end = time.monotonic() + seconds
    first = range(0, count, max(1, count // LEAST))
    yield from first
    for index in range(count):
        if index not in first:
            if time.monotonic() > end:
                return
            yield index


def question(config: DataConfig, reach: Reach, unit: str) -> UsageError:
    """The error that asks for `sensor` and `window_ms`, with a proposal that is taken as it stands."""
    wanted = few(key for key in ("sensor", "window_ms") if getattr(config, key) is None)
    whole = reach.looked == reach.count
    seen = f"{'all' if whole else f'{reach.looked} of'} {reach.count} recordings reach {'' if whole else 'at least '}" \
           f"{reach.rows} rows, {reach.columns} columns and {reach.longest / 1000:g} ms"
    if max(reach.rows, reach.columns) > LARGEST_SENSOR:
        return UsageError(f"source {config.name}: {wanted} not given; {seen}, where a sensor has at most "
                          f"{LARGEST_SENSOR} pixels each way; are x, y and t in their own columns?")
    values = {"sensor": ",".join(map(str, config.sensor or (reach.rows, reach.columns))),
              "window_ms": config.window_ms or 1 + reach.longest // 1000}
    advice = f", so perhaps {{}}{'' if whole else ' or more'}"
    if reach.longest * config.steps < 1000:  # even the shortest window would have all in its first step
        values.pop("window_ms")
        advice += f"; so short is no recording: {UNITS[unit]}"
    elif not 1000 <= reach.longest < LONG:
        advice += f"; if that is no recording's length: {UNITS[unit]}"
    return UsageError(f"source {config.name}: {wanted} not given; {seen}" + advice.format(proposal(config, **values)))
