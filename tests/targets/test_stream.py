"""Frames as they come, and the clock: `targets run --stream` and `targets bench`."""

import json

import numpy as np
import pytest
import torch

from hardspike import HardspikeError, UsageError
from targets import commands, loihi2, native, stream
from targets import graph as graphs
from targets.options import RandomEvents
from targets.table import TARGETS
from tests import random_graphs

STEPS = 10


def lines_of(frames: np.ndarray) -> str:
    return "".join(json.dumps(frame.tolist()) + "\n" for frame in frames)


@pytest.mark.parametrize("target", ["loihi2", "reference"])
def test_a_stream_spikes_as_the_whole_recording(target, tmp_path, capsys):
    graph, shape = random_graphs.graph(1)
    frames = random_graphs.frames(1, STEPS, 1, shape)[:, 0]
    graphs.write(graph, tmp_path / "model.nir")
    (tmp_path / "frames.jsonl").write_text(lines_of(frames) + '{"reset": true}\n\n' + lines_of(frames[:2]))
    assert commands.run(tmp_path / "model.nir", target, stream=tmp_path / "frames.jsonl") == STEPS + 2
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["step"] for answer in answers] == [*range(STEPS), 0, 1]
    whole = TARGETS[target].run(graph, torch.from_numpy(frames)[:, None])
    for t, answer in enumerate([*answers, *answers[STEPS:]]):
        step = answer["step"]
        for name, spikes in whole.spikes.items():
            assert answer["spikes"][name] == np.flatnonzero(spikes[step, 0]).tolist(), (t, name)
        assert answer["output"] == whole.output[step, 0].flatten().tolist()
    assert any(answer["spikes"][name] for answer in answers for name in whole.spikes)


def test_events_are_places_that_count():
    lines = ['{"events": [[0, 1], [0, 1], [1, 0]]}', "[[0, 2], [1, 0]]", "[0, 2, 1, 0]"]
    given = list(stream.frames(lines, (2, 2), "x"))
    assert len(given) == 3
    assert all(np.array_equal(frame, [[0, 2], [1, 0]]) for frame in given)


@pytest.mark.parametrize(("line", "message"), [
    ('{"events": [[0, 2]]}', r"x: line 2: event \[0, 2\] is no place of \(2, 2\)"),
    ('{"events": [[0, true]]}', "is no place"), ("[1, 2]", "x: line 2: is no frame: give 4 whole numbers"),
    ("[0.5, 0, 0, 0]", "is no frame"), ('"abcd"', "is no frame"), ("{", "x: line 2"), ("[[1, 2], [3]]", "is no frame")])
def test_what_is_no_frame_is_refused_by_its_line(line, message):
    with pytest.raises(HardspikeError, match=message) as error:
        list(stream.frames(["[0, 0, 0, 0]", line], (2, 2), "x"))
    assert "\n" not in str(error.value)


def test_beyond_what_is_proven(monkeypatch):
    if not native.compilers():
        pytest.skip("no C compiler")
    graph, shape = random_graphs.graph(1)
    running = stream.stepper(loihi2, graph)
    assert isinstance(running, stream.Compiled)
    with pytest.raises(HardspikeError, match="a frame holds 256; this network is proven for 0 to 255 events"):
        running.step(np.full(shape, 256))
    monkeypatch.setenv("CC", "no-such-compiler")
    assert isinstance(stream.stepper(loihi2, graph), stream.Replayed)
    assert isinstance(stream.stepper(TARGETS["reference"], graph), stream.Replayed)
    with pytest.raises(UsageError, match="takes seconds to start"):
        stream.stepper(TARGETS["lava"], graph)


def test_stream_and_tables_do_not_mix(tmp_path):
    with pytest.raises(UsageError, match="leave out --input, --out and --json"):
        commands.run(tmp_path / "model.nir", stream=tmp_path / "a", json=tmp_path / "b")


def test_bench(tmp_path, capsys):
    graph, _ = random_graphs.graph(1)
    graphs.write(graph, tmp_path / "model.nir")
    found = commands.bench(tmp_path / "model.nir", events=RandomEvents(3, 4), runs=5, json=tmp_path / "bench.json")
    assert (found.samples, found.steps, found.runs) == (3, 4, 5)
    assert 0 < found.fastest <= found.median <= found.p99 <= found.slowest and found.throughput > 0 < found.memory
    stored = json.loads((tmp_path / "bench.json").read_text())
    assert stored["median"] == found.median and stored["target"] == "loihi2"
    assert "samples/s" in capsys.readouterr().out
    with pytest.raises(UsageError, match="runs 0"):
        commands.bench(tmp_path / "model.nir", runs=0)
    with pytest.raises(UsageError, match="density 2"):
        commands.bench(tmp_path / "model.nir", events=RandomEvents(density=2))


def test_bench_takes_as_many_samples_as_are_asked_for_and_0_is_all(tmp_path):
    graph, shape = random_graphs.graph(1)
    graphs.write(graph, tmp_path / "model.nir")
    np.savez(tmp_path / "x.npz", spikes=np.zeros((3, 7, *shape), np.uint8))

    def samples(count, input=None):
        return commands.bench(tmp_path / "model.nir", "reference", input, RandomEvents(count, 3 if not input else 32),
                              runs=1).samples

    assert [samples(count) for count in (0, 2)] == [64, 2]
    assert [samples(count, tmp_path / "x.npz") for count in (0, 2, 9)] == [7, 2, 7]
    with pytest.raises(UsageError, match=r"samples -1: must be 0 \(all of --input, 64 random ones\) or more"):
        samples(-1)
    with pytest.raises(UsageError, match="leave them out beside --input"):
        commands.bench(tmp_path / "model.nir", input=tmp_path / "x.npz", events=RandomEvents(steps=9))
    np.savez(tmp_path / "y.npz", spikes=np.zeros((3, 7, *shape[:-1], 99), np.uint8))
    with pytest.raises(HardspikeError, match=r"model.nir: \S*y.npz: spikes of shape"):
        samples(0, tmp_path / "y.npz")
