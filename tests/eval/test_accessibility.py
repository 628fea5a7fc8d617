"""The report as those see it who do not see it: axe-core's rules (WCAG 2.1 A and AA) in Chromium, at the width of a
telephone and of a screen, light and dark; nothing sticks out at the side.

axe-core is no part of the project: `npm install --no-save axe-core` beside it, or AXE=FILE.
"""

import json
import os
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from eval.commands.report import report
from eval.options import Effort
from tests.eval.chromium import CHROMIUM, WHY, seen
from trainer import checkpoint
from trainer.config import FitConfig
from trainer.data import DataConfig
from trainer.fit import fit
from trainer.networks import NetworkConfig, build

AXE = Path(os.environ.get("AXE") or Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js")
pytestmark = [pytest.mark.slow,
              pytest.mark.skipif(not CHROMIUM, reason=WHY),
              pytest.mark.skipif(not AXE.is_file(), reason="no axe-core here: npm install --no-save axe-core")]
EFFORT = Effort(targets="reference,loihi2", bits="8", samples=24, corrupted=8, severities="0,0.1")
RUN = """<script src="/axe.js"></script><script>
document.querySelectorAll('details').forEach(one => one.open = true);
axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']}).then(found => {
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;  // a scroll bar hides 15 px
  const rules = found.violations.map(one => one.id + ': ' + one.nodes.map(node => node.html.slice(0, 120)).join(' | '));
  parent.document.getElementById('found').textContent = JSON.stringify({
    wide, rules, passes: found.passes.length, dark: matchMedia('(prefers-color-scheme: dark)').matches});
});</script>"""


def looked_at(page: str, width: int, dark: bool, folder: Path) -> dict:
    """What axe-core finds in a page in a frame of `width` pixels, all its details open."""
    html = "text/html; charset=utf-8"
    frame = f'<p id="found"></p><iframe src="/page" width="{width}" height="800" style="border:0"></iframe>'
    files = {"/": (html, frame.encode()), "/page": (html, page.replace("</body>", f"{RUN}</body>").encode()),
             "/axe.js": ("text/javascript", AXE.read_bytes())}
    dom, _, said = seen(files, "/", folder, "--virtual-time-budget=60000", "--window-size=1400,900",
                        f"--blink-settings=preferredColorScheme={0 if dark else 1}")
    found = re.search(r'<p id="found">(.+?)</p>', dom, re.DOTALL)
    assert found, said[-2000:]
    return json.loads(unescape(found[1]))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A network that is ready or nearly so, one that no chip holds, and both side by side."""
    folder = tmp_path_factory.mktemp("run")
    config = FitConfig(out=folder / "run", epochs=2, batch_size=64, method="surrogate", data=DataConfig(steps=4),
                       network=NetworkConfig(layers="6c5s3-24", batch_norm=True, reset="zero"))
    fit(config)
    stored = checkpoint.load(folder / "run" / "best.pt")
    stored.config.network = replace(stored.config.network, layers="mp2-4c5s2-16")
    stored.network = build(stored.config.network, stored.shape, stored.classes).eval()
    checkpoint.save(stored, folder / "refused.pt")
    asked = {"good": [folder / "run"], "failing": [folder / "refused.pt"],
             "both": [folder / "run", folder / "refused.pt"]}
    for name, models in asked.items():
        report(*models, out=folder / f"{name}.html", effort=EFFORT)
    return {name: (folder / f"{name}.html").read_text() for name in asked}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", ["good", "failing", "both"])
def test_a_report_keeps_the_rules_of_accessibility(pages, name, width, dark, tmp_path):
    found = looked_at(pages[name], width, dark, tmp_path)
    assert found["dark"] is dark and found["passes"] > 20
    assert found["rules"] == [] and found["wide"] <= 0


def test_what_breaks_the_rules_is_noticed(pages, tmp_path):
    """A picture without words and text that is too faint."""
    planted = pages["good"].replace("<main>", '<main><svg role="img"></svg><p style="color:#ccc">faint</p>', 1)
    rules = {rule.partition(":")[0] for rule in looked_at(planted, 1280, False, tmp_path)["rules"]}
    assert {"svg-img-alt", "color-contrast"} <= rules
