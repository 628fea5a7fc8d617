"""`python -m eval energy`: prices are data with their evidence, and no total hides a term without a price."""

import json
import sys

import pytest
import torch
import yaml

from eval import rows as tables
from eval.__main__ import COMMANDS
from eval.commands.energy import energy as command
from eval.commands.operations import operations as count
from eval.energy.measure import for_weights
from eval.energy.price_tables import EVIDENCE, FOLDER, OTHER_WAYS, TERMS, load_table
from eval.energy.sana_fe import simulate
from eval.options import Sample, Tables
from export.commands import quantise
from export.freeze.freeze import freeze
from export.model import Model
from export.options import Output, Quantisation
from export.passes.lower import lower
from hardspike import HardspikeError, run
from targets.graph import read, write
from targets.loihi.chips import LOIHI1
from tests.eval.opened import subjects
from tests.networks import THEORY, busy_checkpoint
from trainer.checkpoint import Checkpoint, save
from trainer.config import FitConfig
from trainer.data import DataConfig
from trainer.networks import NetworkConfig, build

TABLES = sorted(file.stem for file in FOLDER.glob("*.yaml"))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    busy_checkpoint(folder / "best.pt", DataConfig(steps=4), layers="6c5s3-32", reset="zero")
    quantise(folder / "best.pt", Output(folder / "int.nir"), Quantisation("loihi1", train_samples=16), samples=16)
    return folder


def energy(*models, samples=8, **options):
    """The rows that the command shows."""
    return tables.energy(command(*models, sample=Sample(samples=samples), **options).rows)


def operations(*models, samples=8):
    return [row for run in count(*models, sample=Sample(samples=samples)) for row in tables.operations(run)]


def totals(rows):
    return {(row["run"], row["prices"]): row["energy nJ"] for row in rows if row["term"] == "total"}


def own_table(folder, **changes):
    content = yaml.safe_load((FOLDER / "horowitz45nm.yaml").read_text())
    for path, value in changes.items():
        *part, key = path.split("__")
        holder = content[part[0]] if part else content
        if value is None:
            del holder[key]
        else:
            holder[key] = value
    (folder / "own.yaml").write_text(yaml.safe_dump(content))
    return str(folder / "own.yaml")


@pytest.mark.parametrize("name", TABLES)
def test_every_table_loads_and_prices_or_excludes_known_terms(name):
    table = load_table(name)
    assert table.about and {price.evidence for price in table.prices.values()} <= set(EVIDENCE)
    general = [term for term, meaning in TERMS.items() if "chips only" not in meaning]
    if table.chip is None:
        assert {*table.prices, *table.excluded} - set(OTHER_WAYS) == set(general)


def test_the_papers_convention_is_synops_times_900_femtojoules(models):
    per_sample = next(row for row in operations(models / "best.pt", samples=8) if row["layer"] == "per sample")
    rows = energy(models / "best.pt", prices="synops_45nm", samples=8)
    assert totals(rows)["SNN, hard", "synops_45nm"] == pytest.approx(per_sample["synops"] * 0.9e-3)
    assert {row["term"] for row in rows if row["evidence"] == "left out" and row["run"] == "SNN, hard"} >= {"updates"}


def test_a_picture_is_multiplied_and_spikes_are_added(tmp_path):
    """The papers' convention for direct encoding: 4.6 pJ a dense MAC of the first layer, 0.9 pJ an operation behind."""
    data = DataConfig(name="images", encoding="count", count_max=255, steps=4)
    network = NetworkConfig("6c3-ap2-4c3-16", batch_norm=False, gain=4.0)
    save(Checkpoint(FitConfig(data=data, network=network), build(network, (1, 8, 8), 10), (1, 8, 8), 10, 1, [], THEORY),
         tmp_path / "a.pt")
    write(Model.open(tmp_path / "a.pt").graph, tmp_path / "a.nir")
    dense = 22**2 * 6 * 4  # of 8 pixels 6 have three neighbours along an axis and two have two; 6 channels, 4 steps
    rows = energy(tmp_path / "a.pt", tmp_path / "a.nir", prices="papers_45nm", samples=8)
    for name in ("a.pt", "a.nir"):
        of = {row["term"]: row for row in rows if row["prices"] == "papers_45nm" and row["model"].endswith(name)}
        assert of["input_macs"]["a sample"] == dense
        behind = of["spike_synops"]["a sample"]
        assert 0 < behind < of["synops"]["a sample"]
        assert of["total"]["energy nJ"] == pytest.approx(dense * 4.6e-3 + behind * 0.9e-3)
        assert of["total"]["evidence"] == "estimated"


def test_binary_input_is_added_by_the_papers_too(models):
    found = {row["term"]: row["a sample"] for row in energy(models / "best.pt", prices="papers_45nm", samples=8)
             if row["run"] == "SNN, hard"}
    assert found["input_macs"] == 0 and found["spike_synops"] == found["synops"] > 0


def test_the_ann_is_dense_once_a_sample_without_and_with_memory(models):
    found = totals(energy(models / "best.pt", samples=8))
    side = (34 + 2 * 2 - 5) // 3 + 1
    conv = sum(1 for at in range(side) for k in range(5) if 0 <= 3 * at + k - 2 < 34) ** 2 * 2 * 6
    macs = conv + 6 * side**2 * 32 + 32 * 10
    assert found["ANN, one pass", "horowitz45nm"] == pytest.approx(macs * 4.6e-3)
    assert found["ANN, one pass", "horowitz45nm_sram"] == pytest.approx(
        macs * 4.6e-3 + (2 * macs + 6 * side**2 + 32 + 10) * 5e-3)


def test_a_missing_price_refuses_the_total_and_names_the_term(models, tmp_path, capfd):
    table = own_table(tmp_path, prices__updates=None)
    words = ["energy", str(models / "best.pt"), "--prices", table, "--samples", "8", "--json", str(tmp_path / "e.json")]
    assert run("eval", COMMANDS, words) == 1
    error = capfd.readouterr().err
    assert "table own has no price for updates;" in error and error.count("\n") == 1
    stored = json.loads((tmp_path / "e.json").read_text())
    assert totals(stored["rows"])["SNN, hard", "own"] is None and len(stored["refused"]) == 1
    own_table(tmp_path, prices__updates=None, excluded__updates="asked for")
    assert run("eval", COMMANDS, words) == 0


def test_integers_priced_as_floats_are_named(models, tmp_path, capfd):
    energy(models / "int.nir", samples=8)
    assert "prices floats, --prices horowitz45nm_int8 integers" in capfd.readouterr().out
    energy(models / "int.nir", prices="horowitz45nm_int8,synops_45nm", samples=8)
    energy(models / "best.pt", samples=8)
    graph = read(models / "int.nir")
    graph.nodes["dense2"].weight[0, 0] = 255  # 9 bits beside others
    write(graph, tmp_path / "wide.nir")
    table = load_table("horowitz45nm")
    assert for_weights(subjects(tmp_path / "wide.nir")[0], table) is table
    assert "prices floats" not in capfd.readouterr().out


def test_sana_fe_fires_as_loihi1_and_gives_energy_and_time():
    pytest.importorskip("sanafe")
    network = build(NetworkConfig(layers="4c3s2-16", reset="zero", readout="spikes", gain=4.0), (2, 12, 12), 5).eval()
    x = (torch.rand(6, 3, 2, 12, 12) < 0.3).float()
    found = simulate(lower(freeze(network, (2, 12, 12)), x, LOIHI1)[0], x)
    assert found.spikes > 100 and found.differing == 0
    assert found.steps == 6 + 3 and found.seconds > 0
    assert found.joules["total"] == pytest.approx(sum(found.joules.values()) / 2)


def test_sana_fe_that_is_absent_is_named(models, monkeypatch):
    monkeypatch.setitem(sys.modules, "sanafe", None)
    with pytest.raises(HardspikeError, match=r"pip install 'hardspike\[energy\]'"):
        energy(models / "int.nir", prices="loihi1", samples=2, sanafe=1)


def test_nothing_is_borrowed_for_loihi_2(models):
    with pytest.raises(HardspikeError, match="loihi2 has no price for synops, host_synops, updates"):
        energy(models / "int.nir", prices="loihi2", samples=8)


def test_loihi_1_prices_the_mapped_graph(models, capfd):
    rows = energy(models / "int.nir", prices="loihi1", samples=8)
    counts = {row["term"]: row["a sample"] for row in rows if row["prices"] == "loihi1"}
    layers = {row["layer"]: row for row in operations(models / "int.nir", samples=8)}
    assert counts["synops"] * 8 == layers["conv1"]["synops"] + layers["dense2"]["synops"]
    assert counts["host_synops"] * 8 == layers["readout"]["synops"] > 0
    expected = (counts["synops"] * 23.6 + counts["updates"] * 81 + counts["messages"] * 1.7 + counts["hops_ew"] * 3
                + counts["hops_ns"] * 4)
    assert totals(rows)["SNN, loihi1", "loihi1"] == pytest.approx(expected * 1e-3)
    assert "breaks" not in capfd.readouterr().out
    with pytest.raises(HardspikeError, match="need a graph mapped to its cores"):
        energy(models / "best.pt", prices="loihi1", samples=8)


@pytest.mark.parametrize(("changes", "message"), [
    ({"prices__acks": {}}, r"'acks' is unknown; did you mean 'acs'"),
    ({"prices__acs": {"value": 1, "unit": "pJ", "source": "me"}}, "acs: a price has value, unit, source and evidence"),
    ({"prices__acs": {"value": -1, "unit": "pJ", "source": "me", "evidence": "stated"}}, "value -1 is no finite"),
    ({"prices__acs": {"value": 1, "unit": "J", "source": "me", "evidence": "stated"}}, "unit 'J' is unknown"),
    ({"prices__acs": {"value": 1, "unit": "pJ", "source": "me", "evidence": "sure"}}, "evidence 'sure' is unknown"),
    ({"prices__acs": {"value": 1, "unit": "pJ", "source": "", "evidence": "stated"}}, "has no source"),
    ({"prices__acs": {"value": 1, "unit": ["pJ"], "source": "me", "evidence": "stated"}}, r"unit '\['pJ'\]' is"),
    ({"prices__acs": {"value": 1, "unit": "pJ", "source": "me", "evidence": {}}}, r"evidence '{}' is unknown"),
    ({"prices__acs": {"value": 10**400, "unit": "pJ", "source": "me", "evidence": "stated"}}, "must be at most 9.2"),
    ({"int8": "horowitz8"}, "int8 'horowitz8' is no table"),
    ({"excluded__acs": "why"}, "is priced and excluded"), ({"excluded__reads": ""}, "without a reason")])
def test_bad_tables_are_refused(changes, message, tmp_path):
    with pytest.raises(HardspikeError, match=message):
        load_table(own_table(tmp_path, **changes))


def test_exponents_without_a_point_are_numbers(tmp_path):
    (tmp_path / "t.yaml").write_text("prices: {acs: {value: 3e-2, unit: pJ, source: me, evidence: stated}}")
    assert load_table(str(tmp_path / "t.yaml")).prices["acs"].joules == pytest.approx(3e-14)


def test_a_table_that_leaves_out_all_that_was_counted_has_no_total(models, tmp_path):
    with pytest.raises(HardspikeError, match=r"ANN, one pass\): table synops_45nm leaves out all .*macs"):
        energy(models / "best.pt", ann="synops_45nm", samples=8, tables=Tables(tmp_path / "e.json"))
    stored = json.loads((tmp_path / "e.json").read_text())
    assert totals(stored["rows"])["ANN, one pass", "synops_45nm"] is None


def test_unreadable_tables_are_refused(tmp_path):
    for text, message in (("a: [", "cannot be read as YAML"), ("", "is empty"),
                          ("price: 1", "did you mean 'prices'"), ("chip: [loihi1]", "chip .* is unknown")):
        (tmp_path / "t.yaml").write_text(text)
        with pytest.raises(HardspikeError, match=message):
            load_table(str(tmp_path / "t.yaml"))
    with pytest.raises(HardspikeError, match="did you mean 'loihi1'"):
        load_table("lohi1")
