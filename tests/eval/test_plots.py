"""Plots hold names as they are: neither mathematics nor markup nor patterns; ids are ours."""

import re
from xml.etree import ElementTree

import pytest

from eval.plots import labels, picture, plot

NAMES = [r"$\frac$", r"$a$ and $b$", r"a\1b", '"><img src=x onerror=alert(1)>', "fc/1 & <b>", "_hidden", 'id="7"',
         "url(#x)", "1.23456"]


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()).strip() for element in ElementTree.fromstring(svg).iter()
            if element.tag.split("}")[-1] == "text"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_drawn_as_they_are(name, tmp_path):
    def draw(axes):
        axes.plot([0, 1], [0, 1], label=name)
        axes.set(xticks=[0], xticklabels=[name])

    svg = plot("p1", name, name, draw)
    assert texts(svg).count(name) == 2
    assert ElementTree.fromstring(svg).get("aria-label").strip() == name
    tags = re.findall(r"<[^>]*>", svg)
    assert all(identity.startswith("p1-") for tag in tags for identity in re.findall(r'\bid="([^"]*)"', tag))
    assert not any(tag.startswith("<img") for tag in tags)
    with picture(tmp_path / "a.svg", (3, 2)) as figure:
        figure.subplots().set_title(name)
    assert name in texts((tmp_path / "a.svg").read_text())


def test_what_no_picture_can_hold_is_spelt():
    assert "a\\x01b\\n\\ud800" in texts(plot("p1", "a\x01b\n\ud800", "x", lambda axes: None))


def test_a_logarithmic_axis_has_plain_numbers():
    from eval.plots import logarithmic

    def draw(axes):
        axes.plot([1, 2], [1e-4, 10])
        axes.set_yscale("log")
        logarithmic(axes.yaxis)

    found = texts(plot("p1", "t", "x", draw))
    assert "1e\N{MINUS SIGN}03" in found and not any("$" in text or "mathdefault" in text for text in found)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["\uff1c\U0001f9e0", "long " * 60])
def test_a_name_that_is_hard_to_draw_is_drawn_without_a_word(name, tmp_path):
    assert "svg" in plot("p1", name, name, lambda axes: axes.set(yticks=[0], yticklabels=[name]))
    with picture(tmp_path / "a.svg", (3, 2)) as figure:
        figure.subplots().set(yticks=[0], yticklabels=[name])


def test_models_beside_each_other_are_called_by_what_tells_them_apart(tmp_path):
    assert labels([tmp_path / "a" / "0" / "last.pt", tmp_path / "b" / "1" / "best.pt"]) == ["a/0", "b/1"]
    assert labels([tmp_path / "a" / "last.pt", tmp_path / "a" / "best.pt"]) == ["last.pt", "best.pt"]
    assert labels([tmp_path / "run" / "last.pt"]) == ["run"]
    assert labels([tmp_path / "x.pt", tmp_path / "x.pt"]) == ["x.pt", "x.pt"]
