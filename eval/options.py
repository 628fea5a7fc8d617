"""Options that several eval commands share; without torch, for `--help`."""

from dataclasses import dataclass

from hardspike import OutText, UsageError, choice

SPLITS = ("train", "validation", "test")
ALL = "0 (all)"
ENGINES = ("local", "slurm")


@dataclass(frozen=True)
class Sample:
    """Which recordings.

    Args:
        split: train, validation or test
        samples: recordings, evenly spread over the split; 0 for all
    """

    split: str = "test"
    samples: int = 0

    def checked(self) -> "Sample":
        """Itself.

        Raises:
            UsageError: there is no such split, or `samples` is below 0.
        """
        choice("split", self.split, SPLITS)
        whole("samples", self.samples, zero=ALL)
        return self


@dataclass(frozen=True)
class Tables:
    """Files for what is printed.

    Args:
        json: file for the table
        csv: file for the table
    """

    json: OutText | None = None
    csv: OutText | None = None


@dataclass(frozen=True)
class Stress:
    """Which corruptions and faults, how strong, and where.

    Args:
        corruptions: names joined by commas, or all
        severities: numbers in [0, 1] joined by commas; corruptions.py and faults.py say what each counts
        targets: where float graphs run, joined by commas; a quantised graph runs in its chip's integers
        seed: of the corruptions and faults
    """

    corruptions: str = "all"
    severities: str = "0,0.05,0.1,0.2,0.3,0.5"
    targets: str = "reference"
    seed: int = 0


@dataclass(frozen=True)
class Effort:
    """How much a report measures.

    Args:
        targets: where the exported graph runs, joined by commas: reference, onnxruntime, loihi2, loihi1, lava;
            the first chip that holds it is judged
        bits: widths of a weight on the chips, joined by commas; the first one is judged
        samples: test recordings, evenly spread; 0 for all
        corrupted: test recordings for the corruption curves; 0 for all
        severities: of the corruptions, joined by commas
    """

    targets: str = "reference,onnxruntime,loihi2,loihi1"
    bits: str = "8,4"
    samples: int = 512
    corrupted: int = 100
    severities: str = "0,0.05,0.1,0.2,0.3,0.5"


@dataclass(frozen=True)
class Training:
    """How a study's runs are made.

    Args:
        seeds: seeds 0, 1, ...
        folds: cross-validation: each seed is trained once for each of so many folds of the training and test recordings
            together, and every recording judged by the run that did not see it; 0: the data's own test part
        epochs: of the base, instead of what the study says; a variant's own are scaled by as much
        keep: which epoch's weights are compared, instead of what the study says: hard or surrogate (the best on the
            validation part) or last
        jobs: runs at a time, one thread each
        engine: local (processes of this machine) or slurm (through submitit, `pip install hardspike[slurm]`)
        slurm: options of submitit's `update_parameters`, key=value joined by commas: slurm_partition=cpu,timeout_min=60
    """

    seeds: int = 5
    folds: int = 0
    epochs: int | None = None
    keep: str | None = None
    jobs: int = 2
    engine: str = "local"
    slurm: str = ""

    def checked(self) -> "Training":
        """Itself.

        Raises:
            UsageError: a number out of its range, or an unknown word.
        """
        choice("engine", self.engine, ENGINES)
        for key in ("seeds", "jobs", "epochs"):
            if getattr(self, key) is not None:
                whole(key, getattr(self, key), 1)
        if self.folds < 0 or self.folds == 1:
            raise UsageError(f"folds {self.folds}: 2 or more, or 0 for none")
        if self.slurm and self.engine != "slurm":
            raise UsageError(f"slurm '{self.slurm}': is for --engine slurm")
        return self


@dataclass(frozen=True)
class View:
    """What of a loss landscape.

    Args:
        layer: its weights alone, by the name of its neurons (lif1) or readout; all by default
        spikes: hard or surrogate; by default those that each network was trained with
        reach: how far along both directions, in lengths of the weights
        points: of the grid, along each direction; an odd number has the network itself in the middle
        eigenvalues: of the Hessian, the largest by magnitude; 0 for none
        seed: of the directions
    """

    layer: str | None = None
    spikes: str | None = None
    reach: float = 1.0
    points: int = 21
    eigenvalues: int = 2
    seed: int = 0

    def checked(self) -> "View":
        """Itself.

        Raises:
            UsageError: a number out of its range, or an unknown word.
        """
        if self.spikes is not None:
            choice("spikes", self.spikes, ("hard", "surrogate"))
        if not 0 < self.reach < float("inf"):
            raise UsageError(f"reach {self.reach}: must be positive and finite")
        whole("points", self.points, 3)
        whole("eigenvalues", self.eigenvalues, zero="0 (none)")
        whole("seed", self.seed)
        return self


@dataclass(frozen=True)
class Columns:
    """What is measured of every run of a study beside accuracies, gap and spikes.

    Args:
        calibrate: kinds of `eval calibrate` joined by commas, or all: hard accuracy after each, chosen on the training
            and validation parts, tested once (SAST table III)
        robustness: corruptions of `eval robustness` joined by commas, or all: mean accuracy over their severities, in
            both modes (SAST fig. 2)
        costs: seconds and peak memory of an epoch, gradient evaluations (SAST table IV); wants a quiet machine and
            --jobs 1
    """

    calibrate: str = ""
    robustness: str = ""
    costs: bool = False


def whole(key: str, value: int, least: int = 0, zero: str = "") -> int:
    """`value`, if it is a number of things.

    Args:
        zero: `least` in words, where it means something.

    Raises:
        UsageError: it is below `least`.
    """
    if value < least:
        raise UsageError(f"{key} {value}: must be {zero or least} or more")
    return value


def bit_widths(words: str) -> list[int]:
    """The bit widths in `words`, joined by commas, each once.

    Raises:
        UsageError: there is none, or one that is no whole number from 2 to 8.
    """
    try:
        found = list(dict.fromkeys(int(word) for word in words.split(",") if word.strip()))
    except ValueError as error:
        raise UsageError(f"bits '{words}': whole numbers joined by commas, such as 8,4") from error
    if not found or not all(2 <= width <= 8 for width in found):
        raise UsageError(f"bits '{words}': from 2 to 8, joined by commas, such as 8,4")
    return found
