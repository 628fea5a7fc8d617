"""What a report says of numbers, in words."""


from pathlib import Path

import pytest

from eval.energy.measure import Energies, Energy
from eval.mode import HARD, SURROGATE, Mode
from eval.report.finding import Cores, Finding
from eval.report.runs import Accuracy, Missing, Run
from eval.report.verdict import judge
from eval.robustness.measure import Robustness, RobustnessRow
from eval.statistics import McNemar

REFERENCE, ONNX, CHIP = Mode("reference"), Mode("onnxruntime"), Mode("loihi2", chip="loihi2", bits=8)
INTEGER_ONNX = Mode("onnxruntime", chip="loihi2", bits=8)


def row(mode, right, change=None):
    return Accuracy(mode, right / 100, right / 100 - 0.02, right / 100 + 0.01,
                    None if change is None else McNemar(change, 9, 2, 0.01), 5.0)


def finding(hard=98.5, chip=98.2, floats=0, integers=0, beyond=None, violations=(), **others) -> Finding:
    """Numbers of a model: accuracies in %, spikes that float runs differ in from reference, and integer runs from
    each other."""
    modes = [SURROGATE, HARD, REFERENCE, ONNX, CHIP, INTEGER_ONNX]

    def differs(one: Mode, other: Mode) -> int | None:
        if SURROGATE in (one, other):
            return None
        if one == other:
            return 0
        if one.chip and other.chip:
            return integers
        return floats if not one.chip and not other.chip and ONNX in (one, other) else 0 if not (
            one.chip or other.chip) else 77

    made = [Run(mode, [0], {}, [differs(mode, other) for other in modes],
                beyond if mode == ONNX else None) for mode in modes]
    rows = [row(SURROGATE, 99.0), row(HARD, hard, hard - 99), row(REFERENCE, hard, hard - 99), row(ONNX, hard, 0.0),
            row(CHIP, chip, chip - 99), row(INTEGER_ONNX, chip, chip - 99)]
    return Finding("run", "best.pt", "checkpoint", "0", 1, 359, 4, 10, [0], "digits", made, rows,
                   cores=Cores("Loihi 2", [], 128, "", list(violations)), **others)


@pytest.mark.parametrize(("given", "state", "words"), [
    ({}, "ready", "Ready for Loihi 2 with weights of 8 bits"),
    ({"hard": 77.0, "chip": 76.0}, "not ready", "23.0 points are lost between training and chip"),
    ({"hard": 99.0, "chip": 99.0, "integers": 5}, "not ready", "runs of its integer graph differ"),
    ({"hard": 99.0, "chip": 99.0, "violations": ["error: lif1: x"]}, "not ready", "the chip cannot hold it")])
def test_the_verdict_follows_from_the_numbers(given, state, words):
    verdict = judge(finding(**given))
    assert verdict.state == state and words in verdict.headline
    if given.get("hard") == 77.0:
        assert ("bad", "Hard thresholds cost 22.0 points against the smooth network (9 recordings lost, 2 won, "
                       "p = 0.01).") in verdict.points


def test_a_float32_spike_within_rounding_is_a_note_and_decides_nothing():
    within, beyond = judge(finding(floats=1, beyond=0)), judge(finding(floats=1, beyond=1))
    assert within.state == beyond.state == "ready"
    note, = (point for point in within.points if "float32" in point[1])
    assert note == ("note", "onnxruntime computes in float32, and 1 of its spikes differ from reference's: wherever it "
                            "parts from them, a membrane lies within rounding of its threshold.")
    assert ("bad", "onnxruntime computes in float32, and 1 of its spikes differ from reference's; 1 times it parts "
                   "from them where rounding does not explain it.") in beyond.points
    same = [text for kind, text in within.points if kind == "good" and "Spike for spike" in text]
    assert same == ["Spike for spike the same on every recording: hard = reference; loihi2, 8 bits = onnxruntime of "
                    "loihi2, 8 bits."]


def test_a_layer_that_never_fired_is_not_proven_equal():
    found = finding()
    for run in found.runs:
        run.spikes |= {"lif1": 3.0, "lif2": 0.5 if run.mode == SURROGATE else 0.0}  # smooth spikes are no spikes
    assert ("note", "Silent in every run, so that nothing is known of them: lif2.") in judge(found).points
    found.runs[-1].spikes["lif2"] = 0.1
    assert not any("Silent" in text for _, text in judge(found).points)


def test_another_chips_integers_decide_nothing_about_the_judged_one():
    found = finding()
    other = Mode("loihi1", chip="loihi1", bits=8), Mode("onnxruntime", chip="loihi1", bits=8)
    for run_ in found.runs:
        run_.differs += [None if run_.mode.smooth else 9] * 2
    found.runs += [Run(mode, [0], {}, [None] + [9] * 5 + [3 * (one != mode) for one in other]) for mode in other]
    found.accuracy += [row(mode, 98.0, -1.0) for mode in other]
    verdict = judge(found)
    assert verdict.state == "ready"
    assert any(kind == "bad" and "run the same integer graph, and 3" in text for kind, text in verdict.points)


def test_a_chip_that_refuses_a_model_is_the_verdict():
    found = finding()
    found.runs, found.accuracy = found.runs[:4], found.accuracy[:4]
    assert judge(found).state == "open"
    found.missing = [Missing("Cores", "not that"), Missing("loihi2, 8 bits", "layer 'x' is too much", chip=True)]
    assert judge(found).headline == "Not ready for a chip: layer 'x' is too much"


@pytest.mark.parametrize(("clean", "says"), [(12.0, False), (90.0, True)])
def test_a_network_that_guesses_is_not_called_robust(clean, says):
    curves = Robustness([RobustnessRow("event_drop", Path(), HARD, [clean, clean], clean, 0.1)], [], {}, [0.0, 0.1],
                        100)
    points = judge(finding(corruptions=curves)).points
    assert any(text.startswith("Robust") for _, text in points) == says


@pytest.mark.parametrize(("memory", "words"), [
    (1.4, "0.33 of the ANN's; 14 µJ a recording with data movement (estimated, b), 1.4 of the ANN's. So whether it "
          "saves energy hangs on what is counted."), (0.5, "So it saves energy by either count.")])
def test_the_verdict_on_energy_names_data_movement_beside_arithmetic(memory, words):
    def total(mode, table, value, term="total"):
        return Energy(Path(), mode, None, table, term, nanojoules=value, evidence="estimated")

    found = [total(HARD, "float", 1.0), total(None, "float", 2e4), total(CHIP, "a", 3300.0),
             total(CHIP, "b", 5.0, "reads"), total(CHIP, "b", 1e4 * memory), total(None, "a", 1e4),
             total(None, "b", 1e4)]
    points = judge(finding(energy=Energies(found))).points
    text, = (text for _, text in points if text.startswith("Energy of loihi2, 8 bits against"))
    assert words in text and "(estimated, float)" not in text
