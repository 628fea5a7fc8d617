"""The learning rate: up from where it starts, down to where it ends, at the steps that were asked for."""

import math

import pytest

from trainer.run import _warm_cosine


@pytest.mark.parametrize(("total", "warmup", "start", "end"), [
    (100, 10, 0.0, 0.0), (60, 20, 1e-2, 0.1), (7, 7, 0.5, 0.2), (40, 1, 0.0, 1.0)])
def test_it_rises_to_the_peak_and_falls_to_its_floor(total, warmup, start, end):
    rates = [_warm_cosine(step, total, warmup, start, end) for step in range(total + 1)]
    up = rates[:warmup]
    assert up == pytest.approx([start + (1 - start) * (i + 1) / warmup for i in range(warmup)])
    down = rates[warmup:]
    assert down == pytest.approx([end + (1 - end) * (1 + math.cos(math.pi * i / max(1, total - warmup))) / 2
                                  for i in range(len(down))])
    assert rates[-1] == pytest.approx(end if warmup < total else 1.0)
