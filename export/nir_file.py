"""`python -m export nir`: a checkpoint as a NIR file that was checked spike for spike."""

import json as jsonlib
from dataclasses import asdict, replace
from pathlib import Path

import nir as nirlib
import torch

from export import parity as parities
from export.freeze import freeze
from export.parity import Parity
from export.passes.fold_batchnorm import fold_batchnorm
from hardspike import HardspikeError, UsageError, atomic_path, print_table, versions
from targets.graph import read, write
from targets.inputs import load_spikes
from trainer.checkpoint import Checkpoint, load
from trainer.config import to_dict
from trainer.data import load as load_data


def frozen(checkpoint: Checkpoint, lossy_reset: bool = False, fold: bool = True) -> nirlib.NIRGraph:
    """The hard network of a checkpoint as a NIR graph, BatchNorm folded.

    Metadata: `dt`, `hardspike` (version), `data` (the frames it was trained on, as JSON) and `readout`. A linear
    readout (SAST eq. 6) acts on time-averaged spikes; since it is linear it stands in the graph step by step, and the
    class is the argmax of the output summed over time, as it is for a spiking readout.
    """
    metadata = {"hardspike": versions("hardspike")["hardspike"], "readout": checkpoint.config.network.readout,
                "data": jsonlib.dumps(to_dict(checkpoint.config)["data"])}
    graph = freeze(dict(checkpoint.network.layers), checkpoint.shape, metadata, lossy_reset)
    return fold_batchnorm(graph) if fold else graph


def real_samples(checkpoint: Checkpoint, samples: int, path: Path | None = None,
                 input: Path | None = None) -> torch.Tensor:
    """Frames (T, B, C, H, W) to check an export on: the file `input`, else test recordings spread over the split.

    Raises:
        HardspikeError: no recordings are to be had.
    """
    if input:
        return load_spikes(input)[0][:, :samples or None].float()
    config = checkpoint.config.data
    try:
        data = load_data(replace(config, path=path or config.path))
    except HardspikeError as error:
        raise HardspikeError(f"no recordings to check on ({error}); give --path, --input or --no-check") from error
    count = len(data.test.labels)
    index = torch.linspace(0, count - 1, min(samples or count, count)).round().long()
    return data.to_input(data.test.frames[index])


def nir(model: Path, out: Path | None = None, samples: int = 256, path: Path | None = None, input: Path | None = None,
        lossy_reset: bool = False, no_check: bool = False, json: Path | None = None) -> Parity | None:
    """Write a checkpoint as a NIR graph with hard thresholds and check it spike for spike.

    The file is read back, run by the target `reference` on real samples and compared, layer by layer, with the hard
    PyTorch network, both in float64; a single mismatch is an error and leaves no file. MODEL.parity.json says what
    was compared.

    Args:
        model: checkpoint (.pt) of `python -m trainer fit`
        out: the .nir file; default: the model's name with .nir
        samples: recordings to check on, spread over the test part; 0 for all
        path: folder of the recordings, where it is not the one of the training run
        input: .npz file with `spikes` (T, B, ...) to check on instead
        lossy_reset: write a subtracting reset as NIR's LIF, which resets to zero; prints how many spikes that changes
        no_check: write without checking, and mark the file so
        json: file for the table of the check

    Returns:
        what the check saw; None without a check.
    """
    if model.suffix == ".nir":
        raise UsageError(f"{model}: is a NIR graph already")
    if samples < 0:
        raise UsageError(f"samples {samples}: must be 0 (all) or more")
    checkpoint = load(model)
    graph = frozen(checkpoint, lossy_reset)
    out = out or model.with_suffix(".nir")
    with atomic_path(out) as temporary:
        write(graph, temporary)
        written = read(temporary)
        checked = None
        if not no_check:
            frames = real_samples(checkpoint, samples, path, input)
            unfolded = frozen(checkpoint, fold=False)
            checked = parities.in_chunks(frames, lambda part: parities.check_network(
                checkpoint.network, written, unfolded, part))
            _judge(out, checked, lossy_reset)
    report = parities.write_report(out, written, checked)
    if checked:
        print_table([asdict(layer) for layer in checked.layers], title=f"{out}", json_file=json,
                    extra=jsonlib.loads(report.read_text()))
        print(checked.verdict())
    else:
        print(f"{out}: written, NOT checked ({report} says so)")
    return checked


def _judge(out: Path, checked: Parity, lossy_reset: bool) -> None:
    """Refuse a file that spikes differently, unless it was asked for."""
    if not any(layer.spikes for layer in checked.layers):
        raise HardspikeError(f"{out}: not written: the network gives no spike at all on {checked.samples} samples, so "
                             "the check says nothing; train longer or raise gain")
    if lossy_reset:
        share = checked.mismatches / max(1, sum(layer.spikes for layer in checked.layers))
        print(f"lossy reset: {checked.mismatches} spikes differ ({100 * share:.1f} % of those of the network)")
    elif checked.mismatches:
        raise HardspikeError(f"{out}: not written: {checked.verdict()}; please report this network")
    elif checked.float32 and checked.float32.beyond:
        raise HardspikeError(f"{out}: not written: {checked.verdict()}")
