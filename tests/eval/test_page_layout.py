"""The report as a browser lays it out: on a screen nothing is cut off beside an empty place, at the width of a
telephone no long name sticks out, and on paper everything is there."""

import json
import re
import subprocess
from html import unescape
from pathlib import Path

import pytest

from eval.commands.report import report
from eval.options import Effort
from tests.eval.chromium import CHROMIUM, WHY, seen
from trainer.config import FitConfig
from trainer.data import DataConfig
from trainer.fit import fit
from trainer.networks import NetworkConfig

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason=WHY)]
EFFORT = Effort(targets="reference,loihi2", bits="8", samples=24, corrupted=8, severities="0,0.1")
MEASURE = """<script>
const page = document.documentElement, beside = [...document.querySelectorAll('.beside')];
parent.document.getElementById('found').textContent = JSON.stringify({
  wide: page.scrollWidth - page.clientWidth, parts: Math.max(...beside.map(one => one.children.length)),
  cut: document.querySelector('#cores .scroll').scrollWidth - document.querySelector('#cores .scroll').clientWidth,
  apart: document.querySelector('#cores .numbers').getBoundingClientRect().left
    - document.querySelector('#cores figure').getBoundingClientRect().right});
</script>"""
LONG = "a" * 300
"""A name without a place to break it."""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARDSPIKE_CACHE", str(folder / "cache"))
        fit(FitConfig(out=folder / "run", epochs=1, batch_size=64, method="surrogate", data=DataConfig(steps=4),
                      network=NetworkConfig(layers="6c5s3-24", batch_norm=True, reset="zero")))
        report(folder / "run", out=folder / "page.html", effort=EFFORT)
    return (folder / "page.html").read_text()


def measured(page: str, width: int, folder: Path) -> dict:
    """What `MEASURE` finds in a frame of `width` pixels."""
    html = "text/html; charset=utf-8"
    frame = f'<p id="found"></p><iframe src="/page" width="{width}" height="800" style="border:0"></iframe>'
    files = {"/": (html, frame.encode()), "/page": (html, page.replace("</body>", f"{MEASURE}</body>").encode())}
    dom, _, said = seen(files, "/", folder, "--virtual-time-budget=8000", "--window-size=1400,900")
    found = re.search(r'<p id="found">(.+?)</p>', dom, re.DOTALL)
    assert found, said[-2000:]
    return json.loads(unescape(found[1]))


def printed(page: str, folder: Path) -> int:
    """Pages of paper."""
    folder.mkdir()
    (folder / "page.html").write_text(page)
    subprocess.run([CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                    "--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}", "--no-pdf-header-footer",
                    f"--print-to-pdf={folder / 'page.pdf'}", (folder / "page.html").as_uri()],
                   capture_output=True, timeout=300, check=True)
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", (folder / "page.pdf").read_bytes()))


def test_a_table_lies_whole_beside_its_picture(page, tmp_path):
    found = measured(page, 1280, tmp_path)
    assert found["parts"] == 2 and found["cut"] <= 0 and found["apart"] > 0


def test_a_table_too_wide_for_its_place_lies_below(page, tmp_path):
    wide = page.replace("synapses (bytes)", "synapses (bytes)" + ", in all cores" * 4)
    found = measured(wide, 1280, tmp_path)
    assert wide != page and found["cut"] <= 0 and found["apart"] < 0


@pytest.mark.parametrize("where", ['<p class="headline">', '<h1>', '<ul class="plain"><li>', '<p class="comparison">'])
def test_a_long_name_does_not_stick_out_on_a_telephone(page, where, tmp_path):
    given = page.replace(where, where + LONG, 1) if where in page else page.replace(
        "<main>", f"<main>{where}{LONG}</p>", 1)
    assert LONG in given and measured(given, 360, tmp_path)["wide"] <= 0


def test_details_are_open_on_paper(page, tmp_path):
    """As many pages as with all of them opened by hand, and more than without them."""
    closed = printed(page, tmp_path / "closed")
    opened = printed(page.replace("<details>", "<details open>"), tmp_path / "open")
    without = printed(re.sub(r"<details.*?</details>", "", page, flags=re.DOTALL), tmp_path / "without")
    assert closed == opened > without
