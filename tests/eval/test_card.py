"""The model card: its numbers are those of the other commands, its names are text, its folder is whole."""

import json
from pathlib import Path

import pytest
import yaml

from eval.commands.accuracy import accuracy
from eval.commands.card import card
from eval.options import Sample
from export import commands
from export.model import report_path
from hardspike import HardspikeError, UsageError
from tests.export.test_nir import saved
from trainer.networks import NetworkConfig

FEW = Sample(samples=20)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = saved(NetworkConfig(layers="6c5s2-16", gain=3.0), tmp_path_factory.mktemp("card") / "a.pt")
    commands.nir(path, samples=20)
    return path


def parts(text: str) -> tuple[dict, str]:
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_a_card_says_what_the_commands_say(model, tmp_path):
    card(model, tmp_path / "c.md", licence="apache-2.0", sample=FEW)
    head, body = parts((tmp_path / "c.md").read_text())
    found = {row.mode.smooth: row for row in accuracy(model, sample=FEW)}
    assert head["license"] == "apache-2.0" and head["datasets"] == ["digits"]
    assert head["metrics"][0]["value"] == found[False].accuracy
    assert f"| {100 * found[False].accuracy:.2f} |" in body and f"| {100 * found[True].accuracy:.2f} |" in body
    assert f"| {100 * found[False].gap:.2f} |" in body and "no report of an export" in body


def test_the_folder_for_a_hub_is_whole(model, tmp_path):
    card(model.with_suffix(".nir"), hub=tmp_path / "hub", sample=FEW)
    assert {file.name for file in (tmp_path / "hub").iterdir()} == {"README.md", "a.nir", "a.nir.parity.json"}
    body = parts((tmp_path / "hub" / "README.md").read_text())[1]
    compared = json.loads((tmp_path / "hub" / "a.nir.parity.json").read_text())["compared"]
    assert f"0 spikes of the file differ from those of the network that it was made from, of {compared} places" in body
    assert "about another file" not in body
    with pytest.raises(UsageError, match="holds something"):
        card(model, hub=tmp_path / "hub", sample=FEW)


def test_a_report_about_another_file_is_said_and_a_damaged_one_refused(model, tmp_path):
    copy = tmp_path / "b.nir"
    copy.write_bytes(model.with_suffix(".nir").read_bytes())
    report = json.loads(report_path(model.with_suffix(".nir")).read_text())
    report_path(copy).write_text(json.dumps({**report, "file_sha256": "0" * 64, "checked": False}))
    card(copy, sample=FEW)
    body = (tmp_path / "b.card.md").read_text()
    assert "without a check" in body and "about another file" in body
    report_path(copy).write_text('{"mismatches": "none"}')
    with pytest.raises(HardspikeError, match="no report of an export"):
        card(copy, sample=FEW)


def test_names_are_text(model, tmp_path):
    hostile = tmp_path / "x|<script>alert(1)</script>`[a](b).pt"
    try:
        hostile.write_bytes(model.read_bytes())
    except OSError:
        hostile = tmp_path / "x|<script>`[a](b).pt"  # a slash is no part of a name
        hostile.write_bytes(model.read_bytes())
    card(hostile, tmp_path / "c.md", sample=FEW)
    body = parts((tmp_path / "c.md").read_text())[1]
    assert "<script" not in body and "[a](" not in body and "&lt;script" in body


@pytest.mark.parametrize("options, said", [
    (dict(out=Path("c.txt")), "written as .md"), (dict(out=Path("c.md"), hub=Path("h")), "give one of them"),
    (dict(licence=""), "identifier of a licence"), (dict(licence="a\nb: c"), "identifier of a licence")])
def test_calls_that_cannot_work(model, options, said):
    with pytest.raises(UsageError, match=said):
        card(model, **options)
