"""Train every network of the zoo, or those that are named, and print what `noted` in `export/zoo/networks.yaml` says of
it: `python -m tests.zoo FOLDER [NAME ...]`."""

import sys
from pathlib import Path

import yaml

from eval.energy.measure import TOTAL, for_weights
from eval.energy.measure import measure as energy
from eval.energy.price_tables import load_table
from eval.options import Sample
from eval.statistics import interval
from eval.subject import open_subject
from export.recordings import Recordings
from export.zoo.zoo import entries, get

TABLES = ("horowitz45nm", "horowitz45nm_sram")
COUNTED = 64


def noted(name: str, folder: Path) -> dict:
    """What is to be noted of a network, trained into `folder`."""
    got = get(name, folder)
    file = got.file if got.file.suffix == ".nir" else folder / "best.pt"  # what operations are counted of
    subject = open_subject(file, Recordings(), Sample("test", COUNTED))
    prices = [for_weights(subject, load_table(table)) for table in TABLES]
    totals = {row.table: row.nanojoules for row in energy([subject], prices, []).rows if row.term == TOTAL}
    count = len(open_subject(file, Recordings(), Sample()).part)
    low = 100 * interval(round(got.accuracy / 100 * count), count)[0]
    return {"accuracy": round(got.accuracy, 2), "low": round(low, 1), "spikes": round(got.spikes, 1),
            "energy": {table: round(value or 0.0, 1) for table, value in totals.items()}, "sha256": got.sha256}


if __name__ == "__main__":
    for chosen in sys.argv[2:] or entries():
        found = {chosen: {"noted": noted(chosen, Path(sys.argv[1]) / chosen)}}
        print(yaml.safe_dump(found, sort_keys=False), flush=True)
