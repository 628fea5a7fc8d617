"""A model card: what a graph or a checkpoint is, on what data, how good, at what cost, and what was checked.

Markdown with the front matter that hubs read (huggingface.co/docs/hub/model-cards). Every number is measured here, but
for what the report of the export's check says, which is taken over with its SHA-256 compared.
"""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import jinja2
import yaml

from eval.accuracy import Accuracy
from eval.accuracy import measure as accuracies
from eval.energy.measure import TOTAL, Energies, for_weights
from eval.energy.measure import measure as energies
from eval.energy.price_tables import load_table
from eval.mode import words
from eval.subject import Subject, weight_bits
from export.model import report_path
from hardspike import HardspikeError, UsageError, parse_json, printable, read_bytes, versions

PRICES = ("synops_45nm", "horowitz45nm", "horowitz45nm_sram")
LARGEST_REPORT = 1 << 24
LIBRARIES = ("hardspike", "torch", "nir", "snntorch")


@dataclass(frozen=True)
class Check:
    """What the report beside a file says of its export.

    Args:
        mismatches: spikes that differed; None: it was written without a check.
        compared: places.
        same_file: the report is about this very file.
    """

    mismatches: int | None
    compared: int
    same_file: bool


@dataclass(frozen=True)
class Card:
    """All that the card says.

    Args:
        subject: the model on the recordings.
        sha256: of its file.
        accuracies: in each of its modes.
        energies: by each of `PRICES`.
        check: of its export; None where there is no report beside it.
        bits: of a weight; None for floats.
    """

    subject: Subject
    sha256: str
    accuracies: list[Accuracy]
    energies: Energies
    check: Check | None
    bits: int | None


def measure(subject: Subject) -> Card:
    """Accuracy, energy and check of one model.

    Raises:
        HardspikeError: labels are not known, or the report beside the model is damaged.
    """
    tables = [for_weights(subject, load_table(name)) for name in PRICES]
    path = subject.model.path
    return Card(subject, subject.model.key, accuracies([subject]), energies([subject], tables, []), _check(path),
                weight_bits(subject.model.graph) if subject.model.chip else None)


def render(card: Card, licence: str, command: str) -> str:
    """The card as Markdown. Names out of files are text: neither HTML nor a table's border is obeyed in them."""
    subject = card.subject
    best = next(one for one in card.accuracies if not one.mode.smooth)  # what is deployed has hard spikes
    chip = subject.model.chip
    front = {"license": licence, "library_name": "hardspike", "datasets": [printable(subject.source)],
             "tags": ["spiking-neural-network", "neuromorphic", *([chip.name] if chip else [])],
             "metrics": [{"type": "accuracy", "name": words(best.mode, exported=True), "value": best.accuracy}]}
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, finalize=_text)
    template = environment.from_string((files("eval") / "card.md").read_text())
    totals = [(row.table, row.nanojoules) for row in card.energies.rows if row.term == TOTAL]
    return template.render(
        front=_Raw(yaml.safe_dump(front, sort_keys=False)), card=card, path=subject.model.path.name,
        kind="graph" if subject.model.checkpoint is None else "checkpoint", samples=len(subject.part),
        rows=[(words(one.mode, exported=True), one) for one in card.accuracies], totals=totals, command=command,
        chip=chip and chip.description, licence=licence, about={
            table.name: " ".join(table.about.split()) for table in card.energies.tables},
        versions=", ".join(f"{name} {version}" for name, version in versions(*LIBRARIES).items()))


class _Raw(str):
    """Text that is made here."""


def _text(value: object) -> object:
    """What stands in the card: printable, and no markup."""
    if not isinstance(value, str) or isinstance(value, _Raw):
        return "" if value is None else value
    text = printable(value)
    for char, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;"), ("`", "&#96;"), ("[", "&#91;"),
                       ("]", "&#93;"), ("*", "&#42;"), ("_", "&#95;"), ("\\", "&#92;")):
        text = text.replace(char, name)
    return text


def _check(path: Path) -> Check | None:
    report = report_path(path)
    if not report.is_file():
        return None  # a checkpoint was trained, not exported
    content = parse_json(read_bytes(report, LARGEST_REPORT, "report"), str(report))
    numbers = [content.get(key) if isinstance(content, dict) else None for key in ("mismatches", "compared")]
    if not isinstance(content, dict) or any(not isinstance(number, int | None) for number in numbers):
        raise HardspikeError(f"{report}: no report of an export; remove it or export again")
    same = content.get("file_sha256") == hashlib.sha256(path.read_bytes()).hexdigest()
    return Check(numbers[0] if content.get("checked") is True else None, numbers[1] or 0, same)


def check_licence(licence: str) -> str:
    """`licence`, if it can stand in a card's head.

    Raises:
        UsageError: it is empty, longer than a line, or holds what is not printable.
    """
    if not licence or len(licence) > 80 or not licence.isprintable():
        raise UsageError("--licence: give the identifier of a licence, such as apache-2.0 (spdx.org/licenses)")
    return licence
