"""`python -m export lava`: a checkpoint or a NIR graph as a `.net` file that was run in Lava's own simulator."""

from pathlib import Path

from export.check import parity as parities
from export.check.parity import Parity
from export.formats.integers import chip, quantised
from export.formats.nir import open_graph, output_path
from export.samples import real_samples
from hardspike import atomic_path
from targets.graph import write
from targets.lava import runner
from targets.lava.netx import write_net
from targets.lava.setup import find


def environment_name() -> str:
    """Which Lava on which Python runs a `.net` file here."""
    lava = find()
    patched = " (patched)" if lava.patched else ""
    return f"lava-nc {lava.versions['lava-nc']}{patched} on Python {lava.versions['python']}"


def lava(model: Path, out: Path | None = None, target: str = "loihi2", bits: int = 8, scale: str = "searched",
         samples: int = 128, check_samples: int = 8, path: Path | None = None, input: Path | None = None,
         dt: float | None = None, no_check: bool = False, json: Path | None = None) -> Parity | None:
    """Write a checkpoint or NIR graph as a netx `.net` file for Lava, quantised, checked in Lava's simulator.

    A float graph is quantised first (`python -m export quantise` says more); the integer graph is kept beside the
    file (MODEL.net.nir). The check runs the file in Intel's simulator, which `python -m targets setup lava` installs,
    and the integer graph in `target`'s arithmetic; a single spike that differs is an error and leaves no file.

    Args:
        model: checkpoint (.pt) or graph (.nir), quantised or not
        out: the .net file; default: the model's name with .net
        target: loihi1 (reset to zero only) or loihi2
        bits: of a weight, 2 to 8
        scale: searched or max_abs
        samples: training recordings to choose scales on
        check_samples: test recordings to check on; the simulator takes about a second for each
        path: folder of the recordings, where it is not the one of the training run
        input: .npz file with `spikes` (T, B, ...) for both, where the graph does not say what it was trained on
        dt: seconds a step, where the graph does not say
        no_check: write without checking, and mark the file so
        json: file for the table of the check

    Returns:
        what the check saw; None without a check.
    """
    machine = chip(target)
    integer, _ = quantised(open_graph(model), target, bits, scale, samples, path, input, dt)
    out = output_path(model, out or model.with_suffix(".net"), ".net")
    checked = None
    with atomic_path(out) as temporary:
        layers = write_net(integer, temporary, dt)
        if not no_check:
            frames = real_samples(integer, check_samples, path, input)
            exact, found = machine.run(integer, frames, dt), runner.run(temporary, frames)
            checked = parities.compare(target, environment_name(), exact.spikes, found.spikes)
            parities.refuse_silence(out, checked)
            parities.require_equal(out, checked)
            parities.require_same_output(out, exact.output, found.output, 1e-12)
    write(integer, out.with_name(out.name + ".nir"))
    report = parities.write_report(out, integer, checked, ("h5py",))
    parities.announce(out, report, checked, json)
    if subtracting := [layer.name for layer in layers if layer.subtracts]:
        print(f"{', '.join(subtracting)}: reset by subtraction, which stock netx lacks and stops at; load the file "
              "with `network` of targets/lava/softlif")
    return checked
