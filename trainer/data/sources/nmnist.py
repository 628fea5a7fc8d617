"""N-MNIST (Orchard et al. 2015): MNIST digits on a screen, seen by an ATIS camera that makes three 100 ms saccades."""

from pathlib import Path

from hardspike import HardspikeError
from trainer.data.cache import cache_folder
from trainer.data.config import DataConfig
from trainer.data.readers.five_bytes import read_five_bytes
from trainer.data.readers.tonic_files import download
from trainer.data.samples import Sample, Source

__all__ = ["DURATION", "SENSOR", "source"]

SENSOR = 34
DURATION = 300_000  # us: the three saccades; what comes after, 0.3 % of the events, is the camera at rest
_LAYOUT = "N-MNIST is expected as Train/<digit>/*.bin and Test/<digit>/*.bin"


def source(config: DataConfig) -> Source:
    """Recordings in `Train/<digit>/*.bin` and `Test/<digit>/*.bin` under `config.path` or its folder `NMNIST`.

    Raises:
        HardspikeError: the folder of a digit holds no recordings.
    """
    folder = Path(config.path or download("NMNIST", cache_folder() / "downloads"))
    if not any((folder / part).is_dir() for part in ("Train", "Test")) and (folder / "NMNIST").is_dir():
        folder = folder / "NMNIST"
    parts = {"train": folder / "Train", "test": folder / "Test"}
    missing = {name: f"{part}: no such folder; {_LAYOUT}" for name, part in parts.items() if not part.is_dir()}
    return Source(read=lambda sample: read_five_bytes(sample.file, SENSOR), classes=10, sensor=SENSOR,
                  duration=DURATION, missing=missing,
                  **{name: [] if name in missing else _samples(part) for name, part in parts.items()})


def _samples(part: Path) -> list[Sample]:
    samples = []
    for digit in range(10):
        files = sorted(part.glob(f"{digit}/[!.]*.bin"))
        if not files:
            raise HardspikeError(f"{part / str(digit)}: no *.bin recordings; {_LAYOUT}")
        for file in files:
            name = f"{part.name}/{digit}/{file.stem}"
            samples.append(Sample(id=name, label=digit, recording=name, file=file))
    return samples
