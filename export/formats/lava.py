"""A model as a `.net` file that was run in Lava's own simulator: `hardspike export lava`."""

from export.check import parity as parities
from export.check.parity import Parity
from export.check.report import announce, withdraw, write_report
from export.formats.integers import quantised
from export.model import Model, output_path, require_places
from export.options import Output, Quantisation
from export.recordings import Recordings, check_samples
from hardspike import atomic_path, logger
from targets.chips import chip
from targets.graph import write
from targets.lava import runner
from targets.lava.netx import write_net
from targets.lava.setup import required

_log = logger(__name__)


def environment_name() -> str:
    """Which Lava on which Python runs a `.net` file here.

    Raises:
        HardspikeError: there is no Lava environment.
    """
    lava = required()
    patched = " (patched)" if lava.patched else ""
    return f"lava-nc {lava.versions['lava-nc']}{patched} on Python {lava.versions['python']}"


def write_lava(model: Model, output: Output, chosen: Quantisation, samples: int,
               recordings: Recordings) -> Parity | None:
    """Write a model as a `.net` file, run it in Intel's simulator and compare; see `export.commands.lava`.

    Raises:
        HardspikeError: the graph makes no `.net` file, or a spike differs; there is no file then.
    """
    check_samples(samples)
    machine = chip(chosen.target)
    out = output_path(model, output, ".net")
    if not output.no_check:
        required()  # before the search for scales
    require_places(output, out.with_name(out.name + ".nir"))
    integer, _ = quantised(model, chosen, recordings)
    checked, graph = None, out.with_name(out.name + ".nir")
    with atomic_path(out) as temporary, atomic_path(graph) as beside:  # both of them, or none
        layers = write_net(integer, temporary, recordings.dt)
        write(integer, beside)
        if not output.no_check:
            frames, _ = recordings.part("test", samples, model)
            exact, found = machine.run(integer, frames, recordings.dt), runner.run(temporary, frames)
            checked = parities.compare(machine.name, environment_name(), exact.spikes, found.spikes)
            parities.refuse_silence(out, checked, model.data is not None)
            parities.require_equal(out, checked)
            parities.require_same_output(out, exact.output, found.output, 1e-12)
        withdraw(out, out, graph)
    report = write_report(out, integer, checked, ("h5py",))
    announce(out, report, checked, output.json)
    if subtracting := [layer.name for layer in layers if layer.reset == "subtract"]:
        _log.info(f"{', '.join(subtracting)}: reset by subtraction, which stock netx lacks and stops at; load the file "
                  "with `network` of targets/lava/softlif")
    return checked
