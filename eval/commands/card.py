"""`hardspike eval card`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from eval.commands import say
from eval.options import Sample
from export.recordings import Recordings
from hardspike import (
    HardspikeError,
    OutFile,
    OutFolder,
    UsageError,
    atomic_path,
    check_suffix,
    require_writable,
    write_text,
)

if TYPE_CHECKING:
    from eval.card import Card


def card(model: Path, out: OutFile | None = None, hub: OutFolder | None = None, licence: str = "other",
         sample: Sample = Sample(), recordings: Recordings = Recordings()) -> Card:  # noqa: B008
    """Write a model's card: data, accuracy, transfer gap, bits, energy by table, what was checked, licence.

    Markdown, with the head that hubs of models read. With --hub the card becomes README.md of a folder that also holds
    the model and the report of its export: upload that folder as it is.

    Args:
        model: a run's folder, a checkpoint (.pt) or a graph (.nir)
        out: file to write, *.md; default: the model's name with .card.md
        hub: folder for card, model and report, instead of `out`; new or empty
        licence: of the model, as spdx.org names it
        sample: on what part
        recordings: of what data

    Raises:
        UsageError: `out` is no .md file, `hub` holds something, the licence cannot stand there.
        HardspikeError: the model or its recordings cannot be read.
    """
    from eval.card import check_licence, measure, render
    from eval.subject import open_subjects
    from export.model import model_file
    check_licence(licence)
    if out and hub:
        raise UsageError("--out and --hub: give one of them; the folder's card is its README.md")
    if out:
        check_suffix(out, ".md")
    if hub and hub.exists() and (not hub.is_dir() or any(hub.iterdir())):
        raise UsageError(f"--hub {hub}: is there already and holds something; give a new folder")
    file = model_file(model)
    if not hub:
        require_writable(out or file.with_suffix(".card.md"))
    subject, = open_subjects((model,), recordings, sample)
    found = measure(subject)
    text = render(found, licence, f"hardspike eval card {file.name}")
    if hub:
        _fill(hub, file)
        out = hub / "README.md"
    out = out or file.with_suffix(".card.md")
    write_text(out, text)
    say(f"{out}: written; {'upload the folder as it is' if hub else 'Markdown'}")
    return found


def _fill(hub: Path, model: Path) -> None:
    """Copy the model, and the report of its export where there is one, into the folder."""
    from export.model import report_path
    try:
        hub.mkdir(parents=True, exist_ok=True)
        for file in (model, report_path(model)):
            if file.is_file():
                with atomic_path(hub / file.name) as temporary:
                    shutil.copyfile(file, temporary)
    except OSError as error:
        raise HardspikeError(f"{hub}: cannot be written ({error.strerror})") from error
