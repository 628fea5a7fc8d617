"""Pages and pictures that are full of hostile names, opened in Chromium: no script runs, and nothing is fetched.

A server of our own hands out the file, so that whatever a browser fetched besides would be asked of it; scripts would
set the title, and fetch something, too.
"""

import itertools
import re
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path

import nir
import numpy as np
import pytest

from eval.__main__ import COMMANDS as EVAL
from eval.gradients import Gradients, LayerGradients, Panel, draw
from eval.study.draw import draw_runs
from eval.study.runs import StudyRun
from hardspike import run
from targets.__main__ import COMMANDS as TARGETS
from tests.eval.chromium import CHROMIUM, WHY, seen

pytestmark = pytest.mark.skipif(not CHROMIUM, reason=WHY)

RAN = "document.title='ran';fetch('ran{n}')"
NODES = (  # no '/', which no name of a node has
    "<img src=got{n} onerror=RAN>", '"><img src=got{n} onerror=RAN>', "'><svg onload=RAN>", "<script>RAN",
    "<style>@import 'got{n}';", "<link rel=stylesheet href=got{n}>", "<iframe src=got{n}>", "<base href=got{n}>",
    "<meta http-equiv=refresh content='0;url=got{n}'>", "<object data=got{n}>", "<embed src=got{n}>",
    "<video poster=got{n} autoplay>", "<input autofocus onfocus=RAN>", "<details open ontoggle=RAN>",
    '" onload="RAN', "' onmouseover='RAN", '" style="background:url(got{n})', "url(got{n})", "javascript:RAN",
    "--><img src=got{n} onerror=RAN>", "<!--{n}", "]]><img src=got{n} onerror=RAN>", "<![CDATA[<svg onload=RAN>",
    "&lt;img src=got{n} onerror=RAN&gt;", "&#60;img src=got{n} onerror=RAN&#62;", "%3Cimg%20src=got{n}%3E",
    "\\u003cimg src=got{n} onerror=RAN\\u003e", "{{{{7*{n}}}}}", "{{%raw%}}<img src=got{n}>", "`<img src=got{n}>`",
    "$\\frac{{{n}}}$", "a\\1b{n}", "<<img src=got{n} onerror=RAN>>", "\uff1cimg src=got{n}\uff1e",
    "=HYPERLINK({n})", "<xmp><img src=got{n}>",
    "<image href=got{n}>", "<use href=got{n}#x>", "<set attributeName=href to=got{n}>", "<form action=got{n}><input>",
    "<body onload=RAN background=got{n}>", "<frameset onload=RAN>", "<marquee onstart=RAN>",
    "<audio src=got{n} autoplay>",
    "<source srcset=got{n}>", "<picture><img srcset='got{n} 1x'>", "<table background=got{n}>", "<math href=got{n}>",
    "<template><img src=got{n}>", "<noscript><img src=got{n} onerror=RAN>", "<textarea><img src=got{n}>",
    "<title><img src=got{n} onerror=RAN>", "id={n} class=x onclick=RAN", "<p style=behavior:url(got{n})>",
)
FILES = ("<img src=got{n} onerror=RAN>", '"><svg onload=RAN>', "<script>RAN", "<style>@import 'got{n}';",
         "&lt;img src=got{n}&gt;")
"""Of folders and files."""
TEXTS = ("</script></style></title><script>RAN</script><img src=/got{n}>",)
"""Of values within files, which may have a '/'."""


SIDE = 4


def hostile(forms: tuple[str, ...], start: int) -> list[str]:
    """Each its own number, by which a fetch or a text of the page is known."""
    return [form.replace("RAN", RAN).format(n=number) for number, form in enumerate(forms, start)]


class Visit:
    """What became of a file that was opened: what was asked of its server besides, and the page's title."""

    def __init__(self, content: bytes, kind: str, folder: Path):
        self.dom, self.asked, said = seen({"/page": (kind, content)}, "/page", folder, "--virtual-time-budget=4000")
        assert "/page" in self.asked and len(self.dom) > 200, said[-2000:]

    @property
    def fetched(self) -> list[str]:
        """But for the page and the icon that a browser looks for by itself."""
        return [path for path in self.asked if path not in ("/page", "/favicon.ico")]

    @property
    def ran(self) -> bool:
        return bool(re.search(r"<title>ran</title>", self.dom)) or any("ran" in path for path in self.fetched)


class Texts(HTMLParser):
    """All that is text on a page, its tags, and where pictures within pictures come from."""

    def __init__(self, page: str):
        super().__init__()
        self.text, self.tags, self.images = "", set(), []
        self.feed(page)

    def handle_data(self, data):
        self.text += data

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag == "image":
            self.images.append(dict(attributes).get("href") or "")


@pytest.fixture(scope="module")
def names():
    """60 names, each with a number of its own."""
    nodes = hostile(NODES, 0)
    files = hostile(FILES, len(nodes))
    made = nodes + files + hostile(TEXTS, len(nodes) + len(files))
    assert len(made) == len(set(made)) == 60
    return made


@pytest.fixture(scope="module")
def hostile_graph(names, tmp_path_factory):
    """A folder with a graph and recordings, all of whose names are hostile, and the words of a command on them."""
    nodes, files, texts = names[: len(NODES)], names[len(NODES) : -len(TEXTS)], names[-len(TEXTS) :]
    folder = tmp_path_factory.mktemp("page") / files[0] / files[1]
    folder.mkdir(parents=True)
    graph, spikes = folder / f"{files[2]}.nir", folder / f"{files[3]}.npz"
    nir.write(graph, chain([(name, neurons()) for name in nodes], calibration=texts[0]))
    np.savez(spikes, spikes=(np.random.default_rng(0).random((4, 8, SIDE)) < 0.5).astype(np.uint8),
             labels=np.arange(8) % SIDE)
    return folder, [str(graph), "--input", str(spikes)]


def neurons() -> nir.IF:
    """They fire on every spike that they get."""
    return nir.IF(np.full(SIDE, 1e4), np.full(SIDE, 0.5), np.zeros(SIDE))


def chain(parts: list, **metadata: str) -> nir.NIRGraph:
    """A graph of named nodes, one behind the other."""
    nodes = {"input": nir.Input(np.array([SIDE])), **dict(parts), "output": nir.Output(np.array([SIDE]))}
    return nir.NIRGraph(nodes, list(itertools.pairwise(nodes)), metadata={"dt": 1e-4, **metadata}, type_check=False)


@pytest.fixture(scope="module")
def page(names, hostile_graph):
    """The report."""
    folder, words = hostile_graph
    out = folder / f"{names[-1 - len(TEXTS)]}.html"
    options = ["--targets", "reference,loihi2", "--samples", "8", "--corrupted", "4", "--severities", "0,0.5"]
    assert run("eval", EVAL, ["report", *words, "--out", str(out), *options]) == 0
    return out.read_text()


@pytest.mark.slow
def test_sixty_hostile_names_are_text_in_a_browser(names, page, tmp_path):
    visit = Visit(page.encode(), "text/html; charset=utf-8", tmp_path)
    assert visit.fetched == [] and not visit.ran
    found = Texts(visit.dom)
    assert [name for name in names if name.replace("`", "") not in found.text.replace("`", "")] == []
    assert found.tags & {"script", "img", "iframe", "object", "embed", "link", "base", "form", "video"} == set()
    assert all(source.startswith("data:image/png;base64,") for source in found.images)  # dots of a raster


@pytest.mark.slow
@pytest.mark.parametrize("form", ["<img src=got{n} onerror=RAN>", "<svg onload=RAN>", "<script>RAN</script>",
                                  "<link rel=stylesheet href=got{n}>", "<iframe src=got{n}></iframe>"])
def test_one_name_that_is_no_text_is_noticed(page, tmp_path, form):
    """What the test above looks for is there to be seen."""
    (raw,) = hostile((form,), 77)
    planted = page.replace("<main>", f"<main>{raw}", 1)
    visit = Visit(planted.encode(), "text/html; charset=utf-8", tmp_path)
    assert visit.fetched and visit.ran is ("RAN" in form)


@pytest.mark.slow
def test_pictures_full_of_hostile_names_are_text_in_a_browser(names, hostile_graph, tmp_path):
    """As files of their own, where an SVG's scripts would run; text is not read back from `--dump-dom` here."""
    _, words = hostile_graph
    pictures = [tmp_path / f"{number}.svg" for number in range(5)]
    weighted = [(name, nir.Linear(np.eye(SIDE)) if number % 2 == 0 else neurons())
                for number, name in enumerate(names[: len(NODES)])]
    nir.write(tmp_path / "cores.nir", chain(weighted))
    assert run("targets", TARGETS, ["map", str(tmp_path / "cores.nir"), "--picture", str(pictures[0])]) == 0
    assert run("eval", EVAL, ["robustness", *words, "--corruptions", "spike_deletion", "--severities", "0,0.5",
                              "--plot", str(pictures[1])]) == 0
    runs = [StudyRun(name, seed, {"surrogate": 50.0 + seed, "hard": 40.0, "gap": 10.0}, np.ones(3, bool))
            for name in names for seed in (0, 1)]
    draw_runs(runs, pictures[2], names[0])
    lines = {name: ([0.0, 1.0], [float(number), 1.0]) for number, name in enumerate(names)}
    found = Gradients([_layer(name) for name in names], [Panel(names[1], names[2], names[3], lines)], "hard", "x", 1,
                      1, 1, False, False)
    draw({names[5]: found}, names[4], pictures[3])
    draw(dict.fromkeys(names[5:7], found), names[4], pictures[4])
    for number, file in enumerate(pictures):
        visit = Visit(file.read_bytes(), "image/svg+xml", tmp_path / f"{number}")
        assert (file.name, visit.fetched, visit.ran) == (file.name, [], False)


def _layer(name: str) -> LayerGradients:
    unknown = {field.name: None for field in fields(LayerGradients)}
    return LayerGradients(**unknown | {"layer": name, "weight_mean": 0.0, "weight_deviation": 1.0})


@pytest.mark.slow
def test_a_picture_whose_name_is_no_text_is_noticed(tmp_path):
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><text>x</text>PLANTED</svg>'.replace(
        b"PLANTED", b"<image href='got1'/><script>fetch('ran1')</script>" + b"<!-- -->" * 40)
    visit = Visit(svg, "image/svg+xml", tmp_path)
    assert visit.ran and "/got1" in visit.fetched
