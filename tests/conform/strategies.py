"""The generator's graphs as hypothesis strategies: each draw is one of hypothesis's own, which shrinks them."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.conform import grow


class Draws:
    """Answers as numpy's Generator does, as far as the generator asks."""

    def __init__(self, draw: st.DrawFn):
        self.draw = draw

    def integers(self, low: int, high: int | None = None, size: int | tuple[int, ...] | None = None):
        low, high = (0, low) if high is None else (low, high)
        one = st.integers(int(low), int(high) - 1)
        if size is None:
            return self.draw(one)
        shape = (int(size),) if np.ndim(size) == 0 else tuple(map(int, size))
        return self.draw(arrays(np.int64, shape, elements=one, fill=st.nothing()))

    def random(self) -> float:
        """Shrinks to where nothing happens by chance."""
        return 1 - (self.draw(st.integers(0, 999)) + 1) / 1000

    def choice(self, values, size) -> np.ndarray:
        values = np.asarray(values)
        return values[self.integers(0, len(values), size)]


@st.composite
def cases(draw: st.DrawFn, kind: str | None = None) -> grow.Case:
    """Graphs with input; of one kind, or of any."""
    return grow.grow(Draws(draw), kind)
