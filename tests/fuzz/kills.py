"""Kills: `trainer fit`, exports, the report, a study, compilers, the cache and Lava's set-up, each over older files.

Half of the kills fall at random moments, half right before a change to the file system, where a file could be left
half written.
"""

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.fuzz.forks import Problem, changes, command, emptied, forked, running, temporaries, unloadable, weights

TINY = ["--epochs", "2", "--method", "hard", "--data.steps", "3", "--data.size", "8", "--network.layers", "4c5s4",
        "--network.gain", "3", "--batch_size", "256", "--device", "cpu"]
QUICK = ["--samples", "4", "--corrupted", "2", "--severities", "0,0.5", "--bits", "8", "--targets", "reference"]
STUDY = (
    "base: {epochs: 1, method: hard, device: cpu, batch_size: 256, data: {steps: 3, size: 8}, "
    "network: {layers: 4c5s4}}\nvariants: {a: {lr: 0.003}}\n"
)
SHARES = {"fit": 40, "nir": 15, "quantise": 15, "onnx": 15, "lava": 15, "c": 15, "report": 10, "study": 10,
          "compile": 25, "cache": 20, "setup": 20}
"""Of 200 kills."""


@dataclass(frozen=True)
class Trial:
    """What is killed.

    Args:
        work: in a child.
        out: folder of its final files.
        before: what the next try begins with.
        after: problems that the next run leaves, beside those that all have in common.
        waits: for other processes, which work meanwhile.
    """

    work: Callable[[], object]
    out: Path
    before: Callable[[], object] = lambda: None
    after: Callable[[], list[Problem]] = list
    waits: bool = False


def kills(count: int, seed: int = 0) -> Iterator[Problem]:
    """`count` kills, spread as `SHARES` says; at least one of each."""
    r, folder = random.Random(seed), Path(tempfile.mkdtemp(prefix="kill-"))
    _environment(folder)
    done = {}
    try:
        for name, trial in trials(folder).items():
            wanted = max(1, round(count * SHARES[name] / sum(SHARES.values())))
            found = killed(name, trial, wanted, r, folder)
            done[name] = next(found)
            yield from found
        print("killed: " + ", ".join(f"{name} {number[0]}" for name, number in done.items())
              + f"; {sum(number[0] for number in done.values())} in all", flush=True)
    finally:
        shutil.rmtree(folder)


def _environment(folder: Path) -> None:
    """Its own cache and folder for temporary files, which every child inherits."""
    (folder / "tmp").mkdir()
    os.environ.update(HARDSPIKE_CACHE=str(folder / "cache"), TMPDIR=str(folder / "tmp"))
    tempfile.tempdir = str(folder / "tmp")


def killed(name: str, trial: Trial, count: int, r: random.Random, folder: Path) -> Iterator:
    """First how many were killed (a list that grows), then problems."""
    number = [0]
    yield number
    emptied(trial.out)
    trial.before()
    steps, used, took, status = changes(trial.work, folder / "note")
    moment = {"kill_clock": took} if trial.waits else {"kill_after": used}
    if status != 0:
        yield f"{name}: does not run at all ({status})"
        return
    usual = set(temporaries(folder))  # what libraries keep for themselves
    for _ in range(3 * count):
        if number[0] == count:
            break
        trial.before()
        at = {"kill_at": r.randint(1, steps)} if number[0] % 2 else \
            {key: r.uniform(0.02, value) for key, value in moment.items()}
        where = f"{name}, {', '.join(f'{key} {value:.3g}' for key, value in at.items())}"
        if forked(trial.work, **at) != "killed":
            continue  # it was done before
        number[0] += 1
        yield from (f"{where}: {bad}" for bad in unloadable(trial.out))
        if (status := forked(trial.work)) != 0:
            yield f"{where}: the next run ends with {status}"
        yield from (f"{where}: {bad}" for bad in [*unloadable(trial.out), *trial.after()])
        if left := running(folder):
            yield f"{where}: still runs: {left}"
        if left := sorted(set(temporaries(folder)) - usual):
            yield f"{where}: left after the next run: {left}"
    print(f"killed: {name}: {number[0]}", flush=True)
    if number[0] < count:
        yield f"{name}: only {number[0]} of {count} were killed before they were done"


def trials(folder: Path) -> dict[str, Trial]:
    """Everything that is killed. The first run makes the models that the others take."""
    for name, seed in (("one", 0), ("two", 1)):
        assert forked(command("trainer", "fit", *TINY, "--seed", seed, "--out", folder / name)) == 0, "fit does not run"
    models = [folder / name / "best.pt" for name in ("one", "two")]
    found = {"fit": _fit(folder)}
    for name, suffix, words in (
        ("nir", ".nir", ("--samples", "8")),
        ("quantise", ".nir", ("--samples", "8", "--scale", "max_abs")),
        ("onnx", ".onnx", ("--samples", "4")),
        ("lava", ".net", ("--no_check", "--scale", "max_abs")),
        ("c", ".c", ("--samples", "4", "--scale", "max_abs")),
    ):
        out = folder / name
        found[name] = Trial(_other_each_time(models, ("export", name), ("--out", out / f"x{suffix}", *words), out), out)
    found["report"] = Trial(command("eval", "report", models[0], "--out", folder / "report" / "x.html", *QUICK),
                            folder / "report", lambda: shutil.rmtree(folder / "cache" / "eval", ignore_errors=True))
    (folder / "study.yaml").write_text(STUDY)
    found["study"] = Trial(
        command("eval", "study", folder / "study.yaml", "--out", folder / "study" / "x", "--seeds", "1", "--jobs", "1"),
        folder / "study", lambda: emptied(folder / "study"), waits=True)
    return found | _caches(folder, models[0])


def _other_each_time(models: list[Path], words: tuple, options: tuple, out: Path) -> Callable[[], int]:
    """The command on the model that the files in `out` are not of, as far as a count of its runs says."""

    def call() -> int:
        note = out.with_name(f"{out.name}.runs")
        number = int(note.read_text()) + 1 if note.exists() else 0
        note.write_text(str(number))
        return command(*words, models[number % 2], *options)()

    return call


def _fit(folder: Path) -> Trial:
    """Killed and resumed: the same weights, bit for bit."""
    out = folder / "run"
    whole = [weights(folder / "one" / name) for name in ("best.pt", "last.pt")]

    def fit() -> int:
        resume = ["--resume"] if (out / "last.pt").exists() else []
        return command("trainer", "fit", *TINY, "--out", out, *resume)()

    def after() -> list[Problem]:
        found = []
        for before, name in zip(whole, ("best.pt", "last.pt"), strict=True):
            now = weights(out / name)
            if not all(torch.equal(before[key], now[key]) for key in before):
                found.append(f"{name} has other weights than an uninterrupted run's")
        return found

    return Trial(fit, out, lambda: emptied(out), after)


def _caches(folder: Path, model: Path) -> dict[str, Trial]:
    """Compiled libraries, frames, and Lava's environment, each made anew."""
    graph, spikes, kernels = folder / "q.nir", folder / "in.npz", folder / "cache" / "kernels"
    forked(command("export", "quantise", model, "--out", graph, "--scale", "max_abs", "--no_check"))
    forked(command("trainer", "data", "digits", "--steps", "3", "--size", "8", "--samples", "4", "--out", spikes))

    def compiled() -> int:
        os.environ["HARDSPIKE_KERNEL"] = "native"  # however small the network is
        return command("targets", "run", graph, "--target", "loihi2", "--input", spikes)()

    def not_compiled() -> list[Problem]:
        return [] if list(kernels.glob("*.so")) else ["nothing was compiled"]

    def no_frames() -> None:
        for file in (folder / "cache").glob("*.npy"):
            file.unlink()

    frames = folder / "frames"
    frames.mkdir()
    setup = command("targets", "setup", "lava", "--python", stand_in(folder))
    return {
        "compile": Trial(compiled, kernels, lambda: shutil.rmtree(kernels, ignore_errors=True), not_compiled, True),
        "cache": Trial(command("trainer", "data", "digits", "--steps", "3", "--size", "8", "--out", frames / "x.npz"),
                       frames, no_frames),
        "setup": Trial(setup, folder / "cache" / "lava", lambda: emptied(folder / "cache" / "lava"), _set_up,
                       waits=True),
    }


def _set_up() -> list[Problem]:
    from targets.lava.setup import find

    return [] if find() else ["Lava's environment is not found after the next run"]


def stand_in(folder: Path) -> Path:
    """An interpreter that answers as Lava's would, and installs some small files instead of 500 MB."""
    program = folder / "python3.10"
    program.write_text(f"""#!{sys.executable} -S
import os, shutil, sys, time
words = sys.argv[1:]
if words[:1] == ["-c"]:
    print("3 10")
elif words[:2] == ["-m", "venv"]:
    os.makedirs(words[-1] + "/bin")
    time.sleep(0.05)
    shutil.copy(__file__, words[-1] + "/bin/python")
elif words[:2] == ["-m", "pip"]:
    place = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + "/lib"
    os.makedirs(place, exist_ok=True)
    for number in range(20):
        time.sleep(0.02)
        with open(place + f"/{{number}}.py", "w") as file:
            file.write("x" * 10000)
elif words[-1:] == ["check"]:
    lib = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + "/lib"
    if not os.path.isdir(lib) or len(os.listdir(lib)) < 20:
        sys.exit("not installed")
    print('{{"python": "3.10.0", "lava-nc": "0.10.0"}}')
else:
    sys.exit(f"unknown: {{words}}")
""")
    program.chmod(0o755)
    return program
