"""`hardspike eval robustness`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.commands import say
from eval.options import Sample, Stress, Tables
from export.recordings import Recordings
from hardspike import OutFile, check_suffix, print_table

if TYPE_CHECKING:
    from eval.robustness.measure import Robustness


def robustness(*models: Path, stress: Stress = Stress(), sample: Sample = Sample(),  # noqa: B008
               recordings: Recordings = Recordings(), tables: Tables = Tables(),  # noqa: B008
               plot: OutFile | None = None) -> Robustness:
    """Accuracy over the severity of corruptions and faults, with its mean and the area under the curve.

    All models and modes get the same corrupted recordings, whose SHA-256 is printed, and the same faults. Corruptions
    of the input: event_drop, time_jitter, bin_drop, background_noise, dead_pixels, stuck_pixels, hot_pixels; faults of
    the network: spike_deletion, stuck_neurons (of these two, spikes are counted as well), weight_noise. Severity 0 is
    the clean accuracy. What was computed before is read from the cache.

    Args:
        models: runs' folders and checkpoints (.pt), which run with surrogate and with hard spikes, and graphs (.nir)
        stress: what is done to them
        sample: on what part
        recordings: of what data
        tables: what is written
        plot: .svg file for the curves
    """
    from eval import rows
    from eval.robustness.measure import check, draw, measure, refusal, severity_key
    from eval.subject import open_subjects
    if plot:
        check_suffix(plot, ".svg")
    check(stress)
    subjects = open_subjects(models, recordings, sample)
    found, first = measure(subjects, stress), subjects[0]
    left_out = [refusal(one) for one in found.left_out]
    inputs = {corruption: {severity_key(severity): value for severity, value in zip(found.severities, hashes,
                                                                                    strict=True)}
              for corruption, hashes in found.inputs.items()}
    print_table(rows.robustness(found), f"{first.source}, {sample.split}: accuracy % over severity; {found.samples} "
                f"recordings, T={first.data.steps}, seed {stress.seed}; mean and area over the severities", tables.json,
                {"data": first.source, "split": sample.split, "samples": found.samples, "seed": stress.seed,
                 "inputs": inputs, "left_out": left_out, "spikes": rows.robustness_spikes(found)}, tables.csv)
    if spikes := rows.robustness_spikes(found):
        print_table(spikes, "spikes of the hidden layers a recording (A2SG table A3): fired by their neurons, and "
                    "arrived at the next layers")
    shown = [{"corruption": corruption, **{severity: value[:8] for severity, value in hashes.items()}}
             for corruption, hashes in inputs.items() if corruption in found.of_inputs]
    if shown:
        print_table(shown, "inputs, the same for every model and mode: SHA-256 (--json has it in full)")
    for line in left_out:
        say(line)
    if plot:
        draw(found, plot, f"{first.source}, {sample.split}, {found.samples} recordings")
    return found
