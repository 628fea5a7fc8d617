"""What a report says of numbers, in words."""


from dataclasses import replace
from pathlib import Path

import pytest

from eval.energy.measure import Energies, Energy
from eval.energy.price_tables import load_table
from eval.mode import HARD, SURROGATE, Mode
from eval.report.answers import BREAKS, COST, PROMISE, answers
from eval.report.finding import UNCHECKED, Cores, Excess, Finding, LayerCores, Training
from eval.report.membranes import LayerMembranes
from eval.report.readiness import basis
from eval.report.runs import Accuracy, Missing, Run
from eval.report.verdict import judge
from eval.robustness.measure import Robustness, RobustnessRow
from eval.statistics import McNemar, interval, mcnemar

REFERENCE, ONNX, CHIP = Mode("reference"), Mode("onnxruntime"), Mode("loihi2", chip="loihi2", bits=8)
INTEGER_ONNX = Mode("onnxruntime", chip="loihi2", bits=8)
COUNT = 1000


def answers_of(right, count):
    """Predictions of `count` recordings of class 0, the first `right` of them right."""
    return [0] * right + [1] * (count - right)


def row(mode, right, base=None, count=COUNT, spikes=5.0):
    """The accuracy `right` in % on `count` recordings, against `base` in %."""
    said, before = (answers_of(round(one / 100 * count), count) for one in (right, right if base is None else base))
    low, high = interval(said.count(0), count)
    change = None if base is None else mcnemar(before, said, [0] * count)
    return Accuracy(mode, said.count(0) / count, low, high, change, spikes)


def finding(hard=98.5, chip=98.2, smooth=99.0, others=(), count=COUNT, differ=(0, 0, None), **more) -> Finding:
    """Numbers of a model: accuracies in % on `count` recordings of 10 classes.

    Args:
        others: (mode, accuracy) of more runs, whose spikes nobody compared.
        differ: spikes that float runs differ in from reference, and integer runs from each other; and how often floats
            do so beyond rounding.
        more: fields of the finding.
    """
    floats, integers, beyond = differ
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

    right = dict(zip(modes, (smooth, hard, hard, hard, chip, chip), strict=True)) | dict(others)
    rows = [row(mode, share, None if mode == SURROGATE else smooth, count) for mode, share in right.items()]
    made = [Run(mode, answers_of(round(share / 100 * count), count), {},
                [differs(mode, other) if mode in modes and other in modes else None for other in right],
                beyond if mode == ONNX else None) for mode, share in right.items()]
    return replace(Finding("run", "best.pt", "checkpoint", "0", 1, count, 4, 10, [0] * count, "digits", made, rows,
                           cores=Cores("Loihi 2", [], 128, "", [])), **more)


def trained_hard(hard=True):
    return Training([], 1, hard, {}, {})


@pytest.mark.parametrize(("given", "state", "words"), [
    ({}, "ready", "Ready for Loihi 2 with weights of 8 bits"),
    ({"hard": 77.0, "chip": 76.0}, "not ready", "23.0 points are lost between training and chip"),
    ({"hard": 99.0, "chip": 99.0, "differ": (0, 5, None)}, "not ready", "runs of its integer graph differ"),
    ({"hard": 99.0, "chip": 99.0, "cores": Cores("Loihi 2", [], 128, "", ["error: lif1: x"])}, "not ready",
     "the chip cannot hold it: lif1: x")])
def test_the_verdict_follows_from_the_numbers(given, state, words):
    verdict = judge(finding(**given))
    assert verdict.state == state and words in verdict.headline
    if given.get("hard") == 77.0:
        assert ("bad", "Hard thresholds cost 22.0 points against the smooth network (220 of 1000 recordings "
                       "lost, 0 won, p = 1.2e-66).") in verdict.points


def test_a_float32_spike_within_rounding_is_a_note_and_decides_nothing():
    within, beyond = judge(finding(differ=(1, 0, 0))), judge(finding(differ=(1, 0, 1)))
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
    found.runs += [Run(mode, answers_of(980, COUNT), {}, [None] + [9] * 5 + [3 * (one != mode) for one in other])
                   for mode in other]
    found.accuracy += [row(mode, 98.0, 99.0) for mode in other]
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
    (1.4, "0.33 times the ANN's; 14 µJ a recording with data movement (estimated, b), 1.4 times the ANN's. So "
          "whether it saves energy hangs on what is counted."), (0.5, "So it saves energy by either count.")])
def test_the_verdict_on_energy_names_data_movement_beside_arithmetic(memory, words):
    def total(mode, table, value, term="total"):
        return Energy(Path(), mode, None, table, term, nanojoules=value, evidence="estimated")

    found = [total(HARD, "float", 1.0), total(None, "float", 2e4), total(CHIP, "a", 3300.0),
             total(CHIP, "b", 5.0, "reads"), total(CHIP, "b", 1e4 * memory), total(None, "a", 1e4),
             total(None, "b", 1e4)]
    points = judge(finding(energy=Energies(found))).points
    text, = (text for _, text in points if text.startswith("Energy of loihi2, 8 bits against"))
    assert words in text and "(estimated, float)" not in text


# ---------------------------------------------------------------------------------------- ready, or what is wrong


def headline(found):
    return judge(found).headline


def answer(found, question):
    return dict(answers(found))[question]


def membranes(layer, neurons, silent):
    return LayerMembranes(layer, neurons, 8, 4, 0.1, silent, 0.0, 0.0, [], 0.1)


@pytest.mark.parametrize(("given", "says"), [
    ({"smooth": 11.0, "hard": 33.0, "chip": 32.5}, "surrogate, which was trained: not clearly better than guessing"),
    ({"smooth": 11.0, "hard": 33.0, "chip": 32.5}, "21.5 points better than surrogate: it does something else than"),
    ({"smooth": 80.0, "hard": 95.0, "chip": 95.0}, "15.0 points better than surrogate: it does something else than"),
    ({"smooth": 80.0, "hard": 95.0, "chip": 60.0}, "20.0 points are lost between training and chip, more than 1: it "
                                                   "does something else than what was trained"),
    ({"smooth": 90.0, "hard": 95.0, "chip": 93.5}, "1.5 points are lost against floats, more than 1"),
    ({"smooth": 88.0, "hard": 96.0, "chip": 96.0}, "")])
def test_a_network_that_is_broken_in_either_direction_is_not_ready(given, says):
    verdict = judge(finding(**given))
    assert says in verdict.headline and verdict.state == ("not ready" if says else "ready")


def test_a_better_chip_within_chance_is_ready():
    """Two of sixteen recordings more are 12.5 points and prove nothing."""
    assert judge(finding(smooth=75.0, hard=87.5, chip=87.5, count=16)).state == "ready"


def test_one_recording_in_a_hundred_is_one_point_and_no_more():
    assert 100 * (0.99 - 0.98) > 1 and judge(finding(smooth=99.0, hard=98.0, chip=98.0, count=100)).state == "ready"


def test_floats_are_the_promise_once_where_the_network_was_trained_hard():
    found = finding(hard=98.0, chip=96.0, training=trained_hard())
    assert headline(found).count("points are lost") == 1


@pytest.mark.parametrize(("right", "count", "classes", "says"), [
    (75.0, 4, 2, "too few test recordings (4) to tell it from guessing among 2 classes"),
    (50.0, 4, 2, "not clearly better than guessing among 2 classes"),
    (10.4, 1000, 10, "not clearly better than guessing among 10 classes")])
def test_few_recordings_are_not_called_guessing(right, count, classes, says):
    found = finding(smooth=right, hard=right, chip=right, count=count, classes=classes)
    assert headline(found) == f"Not ready for Loihi 2: {says}"
    assert answer(found, PROMISE).startswith(f"Training promised nothing yet: {says}. Surrogate,")


def test_layers_that_never_fire_come_before_what_they_cause():
    found = finding(smooth=33.0, hard=33.0, chip=33.0, classes=3)
    for run in found.runs:
        run.spikes |= {"lif1": 3.0, "lif2": 0.0, "lif3": 0.0}
    assert headline(found) == ("Not ready for Loihi 2: lif2 and lif3 never fire; not clearly better than guessing "
                               "among 3 classes")
    ready = finding()
    for run in ready.runs:
        run.spikes |= {"lif1": 3.0, "lif2": 0.0}
    assert judge(ready).state == "ready"


@pytest.mark.parametrize(("silent", "named"), [(0.9, True), (0.4, False)])
def test_a_guessing_network_whose_neurons_are_silent_has_that_named(silent, named):
    layers = [membranes("lif1", 100, silent), membranes("lif2", 300, silent)]
    said = headline(finding(smooth=10.0, hard=10.0, chip=10.0, margins=layers))
    assert ("90 % of its neurons never fire; not clearly" in said) == named
    assert "never fire" not in headline(finding(smooth=99.0, hard=90.0, chip=90.0, margins=layers))


def test_the_promise_has_the_test_that_it_rests_on():
    few = finding(smooth=99.0, hard=98.7, chip=98.7)
    assert answer(few, PROMISE) == (
        "Yes. Surrogate, as it was trained, gives 99.0 %, loihi2, 8 bits 98.7 %: 0.3 points less (3 of 1000 recordings "
        "lost, 0 won, p = 0.25, which chance can give too; on the chip 95 % lie between 97.8 and 99.3 %).")
    many = finding(smooth=99.0, hard=95.0, chip=95.0)
    assert answer(many, PROMISE).startswith("No. ") and "40 of 1000 recordings lost, 0 won, p = 1.8e-12;" in answer(
        many, PROMISE)
    assert basis(McNemar(0.0, 3, 3, 1.0), 9) == "3 of 9 recordings lost, 3 won, p = 1"
    chance = finding(smooth=99.0, hard=97.0, chip=97.0, count=100)
    assert headline(chance).endswith("2.0 points are lost between training and chip, more than 1, though chance can "
                                     "give that too")


def test_a_calibration_that_is_clearly_better_is_the_thing_to_do():
    best, worse = Mode(calibration="global"), Mode(calibration="bias")
    found = finding(smooth=90.0, hard=60.0, chip=60.0, others=[(best, 89.0), (worse, 50.0)])
    assert answer(found, PROMISE).endswith(
        "To do: calibrate it (`hardspike eval calibrate --kind global`): in floats that gives 89.0 instead of 60.0 % "
        "(290 recordings won, 0 lost, p = 1e-87).")
    note, = (text for _, text in judge(found).points if text.startswith("Calibration"))
    assert "global 29.0 points won (89.0 %" in note and "bias 10.0 points lost (50.0 %" in note
    for others in ([(best, 60.5)], [(worse, 50.0)]):
        assert "To do" not in answer(finding(smooth=90.0, hard=60.0, chip=60.0, others=others), PROMISE)


def test_what_a_chip_cannot_hold_is_named_with_both_numbers():
    broken = [Excess("", "synapses", 143_045_540, 120_000_000), Excess("lif4 takes ", "input axons of a core", 13872,
                                                                       4096)]
    cores = Cores("Loihi 2", [LayerCores("lif1", 3, 9, 35, 1e6, 1e5, {})], 128, "", ["error: x", "error: y"], broken)
    found = finding(cores=cores)
    sizes = ("143,045,540 synapses, Loihi 2 holds 120,000,000; lif4 takes 13,872 input axons of a core, Loihi 2 holds "
             "4,096")
    assert headline(found) == f"Not ready for Loihi 2: {sizes}"
    assert answer(found, PROMISE).startswith(f"No: {sizes}. In its arithmetic: Surrogate")
    assert "35" not in answer(found, COST) and "does not hold it" in answer(found, COST)


def test_cores_that_only_neurons_fill_are_called_that():
    cores = Cores("Loihi 2", [LayerCores("lif1", 3, 9, 3, 1e6, 1e5, {})], 128, "", [], [], list(UNCHECKED.values()))
    found = finding(cores=cores)
    said = ("3 of 128 cores of Loihi 2, counted by neurons alone (memory, input axons, output axons of a core: not "
            "public, not checked)")
    assert said in answer(found, COST) and any(kind == "note" and said in text for kind, text in judge(found).points)


def test_nothing_breaks_of_what_guesses():
    curves = Robustness([RobustnessRow("event_drop", Path(), CHIP, [10.0, 10.0], 10.0, 0.1)], [], {}, [0.0, 0.1], 100)
    found = finding(smooth=10.0, hard=10.0, chip=10.0, corruptions=curves)
    assert answer(found, BREAKS) == ("Nothing can break of what guesses (loihi2, 8 bits: not clearly better than "
                                     "guessing among 10 classes).")


def test_a_width_that_was_asked_for_and_loses_breaks_first():
    narrow = Mode("loihi2", chip="loihi2", bits=2)
    said = answer(finding(others=[(narrow, 78.0)]), BREAKS)
    assert said.startswith("Weights of 2 bits on loihi2 cost 20.5 points against floats (205 of 1000 recordings lost")
    assert "bits" not in answer(finding(others=[(narrow, 95.0)]), BREAKS)


def test_the_verdict_names_no_file():
    found = finding()
    found.runs, found.accuracy = found.runs[:4], found.accuracy[:4]
    found.missing = [Missing("Targets", "best.pt: layer 'x' is too much", chip=True)]
    assert headline(found) == "Not ready for a chip: layer 'x' is too much"


def test_no_difference_is_not_called_worse():
    points = judge(finding(smooth=64.0, hard=64.0, chip=64.0, training=trained_hard())).points
    assert any("which nobody trained, is as good." in text for _, text in points)
    assert not any("0.0 points" in text for _, text in points)


def test_the_largest_part_of_a_gap_is_a_share_and_no_cause():
    layers = [replace(membranes(name, 5, 0.0), difference=part, in_zone=0.8, phi_at_rest=0.1)
              for name, part in (("lif1", 0.42), ("lif2", 0.34), ("lif3", 0.24))]
    text, = (text for _, text in judge(finding(hard=90.0, membranes=layers)).points if "φ − H" in text)
    assert "the largest part, 42 %, is that of lif1" in text and "arises" not in text


@pytest.mark.parametrize(("table", "chip", "says"), [
    ("loihi1", "loihi1", "0.5 µJ a recording (mean of 64) by the published prices of Loihi 1 (loihi1: simulated, "),
    (None, "loihi1", "the published prices of Loihi 1 give no total here; see the end of the page"),
    (None, "loihi2", "no price for Loihi 2 is published; with the prices of a general 45 nm process, 0.04 to 3.48 µJ a "
                     "recording (mean of 64), without and with data movement")])
def test_energy_is_that_of_the_chips_own_prices_where_there_are_any(table, chip, says):
    mode = Mode(chip, chip=chip, bits=4)
    found = finding(others=[(mode, 98.0)])
    found.accuracy = [one for one in found.accuracy if not one.mode.on_chip or one.mode == mode]

    def total(of, name, value, evidence="estimated"):
        return Energy(Path(), of, None, name, "total", nanojoules=value, evidence=evidence)

    names = ["synops_45nm", "horowitz45nm_int8", "horowitz45nm_int8_sram"]
    rows = [total(mode, names[0], 9.0), total(mode, names[1], 40.0), total(mode, names[2], 3480.0),
            *(total(None, name, 1e3) for name in names[1:])]
    if table:
        rows.append(total(mode, table, 500.0, "simulated"))
    found.energy = Energies(rows, [load_table(name) for name in [*names, *filter(None, [table])]], samples=64)
    said = answer(found, COST)
    assert says in said and "0.04 to 3.48 µJ" in said and "priced as those of 8" in said
    assert "simulated here" not in said
