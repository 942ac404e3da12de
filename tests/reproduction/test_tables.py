"""Tables from result files, plans that expand, and README kept in step with results/."""

import json

import pytest

from fsslib import paths
from fsslib.reproduction import tables
from fsslib.reproduction.config import ConfigError
from fsslib.reproduction.plans import Plan, expand
from fsslib.reproduction.street_tables import (
    camvid_differences,
    camvid_scores,
    from_streets_scores,
    pixda_differences,
    pixda_scores,
)
from fsslib.reproduction.table import by_unit, cell
from fsslib.reproduction.tables import (
    fill,
    laptop_scores,
    rtd_differences,
    rtd_real_differences,
    rtd_real_scores,
    rtd_scores,
    toy_differences,
    toy_scores,
    untrained_scores,
)


def run(label, fold, seed, **miou):
    return {
        "label": label,
        "config": {"fold": fold, "seed": seed, "data": "toy"},
        "scores": {d: {"miou": v, "episodes": 50} for d, v in miou.items()},
        "floors": {"everything": 0.1, "every_object": 0.3 + 0.01 * fold},
        "environment": {"device_name": "a processor", "versions": {"torch": "2.6"}},
    }


RUNS = [
    run(label, fold, seed, photo=0.4 + 0.01 * fold + 0.001 * seed + gain, night=0.2)
    for label, gain in (("SG-One", 0.05), ("prototypes untrained", 0.0), ("prototypes trained", 0.04))
    for fold in range(4)
    for seed in range(3)
]


def test_scores_are_grouped_by_label_and_domain():
    values = by_unit(RUNS, "SG-One", "photo")
    assert len(values) == 12
    assert values[(2, 1)] == pytest.approx(47.1)
    assert by_unit(RUNS, "SG-One", "sketch") == {}
    assert cell({}) == "–"
    assert cell({(0, 0): 1.25, (1, 0): 2.25}) == "1.8"
    table = toy_scores(RUNS)
    assert table.rows[0] == ("everything marked", "10.0", "10.0", "10.0", "10.0")
    assert table.rows[1][1] == "31.5"
    assert table.rows[6][0] == "SG-One"
    assert table.rows[6][1].startswith("46.6 [")
    assert "50 episodes a run; a processor; torch 2.6." in table.note


def test_differences_are_paired():
    row = toy_differences(RUNS).rows[0]
    assert row[1].startswith("+1.0 [+1.0, +1.0] (n=12), p < 0.001")
    assert row[3].startswith("+0.0")
    assert row[2] == "–"


def test_the_ablation_is_held_against_its_baseline_and_its_controls():
    gains = {"BS": 0.0, "Cons": 0.01, "all": 0.05, "control: mixing samples": 0.02}
    runs = [run(label, fold, 0, photo=0.4 + 0.01 * fold + g) for label, g in gains.items() for fold in range(4)]
    assert [row[:2] for row in rtd_scores(runs).rows] == [
        (label, f"{41.5 + 100 * g:.1f}") for label, g in gains.items()
    ]
    assert "4 folds, up to 1 seeds." in rtd_scores(runs).note
    rows = {row[0]: row[1] for row in rtd_differences(runs).rows}
    assert rows["Cons minus BS"].startswith("+1.0")
    assert rows["all minus control: mixing samples"].startswith("+3.0")
    assert rows["all minus control: random items"] == "–"


def test_the_laptops_seconds_are_those_of_the_fastest_run_that_was_not_interrupted():
    def timed(label, seed, seconds, training, **more):
        made = run(label, 0, seed, photo=0.5 + seed / 10)
        made["config"] |= more
        return made | {"seconds": seconds, "training": {"seconds": training}}

    runs = [timed("A", 0, 60, 40), timed("A", 1, 50, 40), timed("A", 2, 8, 40), timed("B", 0, 9, 0, data="streets")]
    table = laptop_scores(runs)
    assert [row[:3] for row in table.rows] == [("A", "50", "60.0")]
    assert laptop_scores(runs[2:]).rows[0][:2] == ("A", "–"), "no run is left that tells"
    assert table.head[:3] == ("", "seconds", "photo")


def street_run(label, seed, cities, pole, road=0.9):
    score = {"miou": cities, "images": 7, "per_class": {"road": road, "pole": pole, "sign": pole, "rider": None}}
    return run(label, 0, seed) | {"scores": {"game": score, "cities": score}}


def test_the_ladder_has_a_column_for_the_rare_classes():
    gains = {"joint": 0.0, "A": 0.01, "A*S*B": 0.03}
    runs = [street_run(label, s, 0.4 + g, 0.1 + 2 * g + 0.01 * s) for label, g in gains.items() for s in range(5)]
    table = pixda_scores(runs)
    assert table.head == ("", "runs", "game", "cities", "cities, rare classes")
    assert table.rows[2][:2] == ("A*S*B", "5")
    assert table.rows[2][4].startswith("18.0 [")
    assert "7 test images a run" in table.note
    rows = {row[0]: row for row in pixda_differences(runs).rows}
    assert rows["A*S*B minus A"][2].startswith("+2.0")
    assert rows["A*S*B minus A"][3].startswith("+4.0")
    assert rows["joint minus source only"][1:] == ("–", "–", "–")


def filmed_run(label, seed, dusk, domain="dusk"):
    score = {"miou": dusk, "images": 7, "per_class": {"road": 0.9, "pole": dusk / 2, "bicyclist": dusk / 2}}
    return run(label, 0, seed) | {"scores": {"day": score, domain: score}}


def test_the_ceiling_stands_in_the_column_of_dusk():
    ceiling = "joint, all 62 images of dusk"
    runs = [filmed_run("joint", s, 0.4) for s in range(5)]
    runs += [filmed_run(ceiling, s, 0.46 + 0.001 * s, "dusk_all") for s in range(5)]
    table = camvid_scores(runs)
    assert table.head == ("", "runs", "day", "dusk", "dusk, rare classes")
    assert table.rows[1][3].startswith("46.2 [")
    rows = {row[0]: row for row in camvid_differences(runs).rows}
    assert rows[f"{ceiling} minus joint"][2].startswith("+6.2")
    assert rows[f"{ceiling} minus joint"][3].startswith("+3.1")
    assert rows["A minus joint"][1:] == ("–", "–", "–")


def test_drawn_to_filmed_streets_are_points():
    runs = [filmed_run("joint", s, 0.3, "game") for s in range(3)]
    assert from_streets_scores(runs).rows[0] == ("joint", "3", "30.0", "30.0", "15.0")


def test_untrained_networks_are_compared_set_by_set():
    runs = []
    for source, gain in (("kvasir", 0.1), ("coco", 0.2)):
        for label in ("random weights", "ImageNet weights"):
            for s in range(5):
                score = 0.2 + 0.001 * s + (gain if label == "ImageNet weights" else 0)
                runs.append(run(label, 0, s, **{source: score}))
                runs[-1]["config"]["source"] = source
                runs[-1] |= {"classes": {"test": ["polyp"]}, "floors": {"by_domain": {source: 0.15}}}
    rows = {row[0]: row[1:] for row in untrained_scores(runs).rows}
    assert rows["kvasir"][:2] == ("1", "15.0 [15.0, 15.0]")
    assert rows["coco"][2].startswith("20.2 [")
    assert rows["coco"][3].startswith("40.2 [")


def test_photographs_are_shown_with_their_floor():
    gains = {"BS": 0.0, "all": 0.1}
    runs = [
        run(label, 3, s, photo=0.3, magnetic_tile=0.4 + g, camvid=0.4) for label, g in gains.items() for s in (0, 1)
    ]
    for r in runs:
        r["floors"]["by_domain"] = {"photo": 0.2, "magnetic_tile": 0.25, "camvid": 0.15}
    assert rtd_real_scores(runs).rows[0] == ("everything marked", "20.0", "25.0", "15.0")
    assert [row[0] for row in rtd_real_scores(runs).rows[1:]] == ["BS", "all"]
    gain = {row[0]: row[2] for row in rtd_real_differences(runs).rows}["all minus BS"]
    assert gain.startswith("+10.0 (n=2, too few")


def test_markdown_and_html_escape_and_line_up():
    table = tables.Table("a < b", ("", "x"), (("r & s", "1"),), "note")
    assert "| r & s | 1 |" in table.markdown()
    assert "<td>r &amp; s</td>" in table.html()
    assert "a &lt; b" in table.html()


def test_filling_replaces_only_its_places():
    pages = {"one": "a\n<!-- generated:x -->\nold\n<!-- end generated -->\nb", "two": "no place"}
    filled = fill(pages, {"x": "new"})
    assert filled == {"one": "a\n<!-- generated:x -->\nnew\n<!-- end generated -->\nb", "two": "no place"}
    assert fill(filled, {"x": "new"}) == filled
    for parts in ({"x": "new", "y": "more"}, {}):
        with pytest.raises(ValueError, match="one, two have places for"):
            fill(pages, parts)
    with pytest.raises(ValueError, match="places for"):
        fill({"one": pages["one"], "two": pages["one"]}, {"x": "new"})


def test_the_pages_are_what_the_results_say():
    pages = tables.read_pages()
    assert fill(pages, tables.parts()) == pages, "run: python -m fsslib.reproduction.tables"


COMMITTED = [name for name in tables.TABLES if (paths.shipped("results") / f"{name}.json").is_file()]


def test_the_toy_results_are_there():
    assert "sg_one_toy" in COMMITTED


@pytest.mark.parametrize("name", COMMITTED)
def test_results_belong_to_their_plan(name):
    plan = Plan.load(name)
    content = json.loads(plan.results_file.read_text(encoding="utf-8"))
    planned = {config.sha256: label for label, config in plan.runs}
    assert len(planned) == len(plan.runs)
    found = {row["config_sha256"]: row["label"] for row in content["runs"]}
    assert len(found) == len(content["runs"])
    assert found.items() <= planned.items(), "a row is not of this plan, or stands under another label"


def test_matrices_expand_to_every_combination():
    assert list(expand({"fold": [0, 1], "seed": [2, 3], "targets": ["night"]})) == [
        {"fold": f, "seed": s, "targets": ["night"]} for f in (0, 1) for s in (2, 3)
    ]


def test_bad_plans_say_where(tmp_path):
    with pytest.raises(ConfigError, match=r"no plan 'nothing'.*sg_one_toy"):
        Plan.load("nothing")
    bad = tmp_path / "plan.yaml"
    bad.write_text("name: x\nruns:\n  - {label: a, fold: 9}\n")
    with pytest.raises(ConfigError, match=r"labelled 'a'.*unknown fold 9"):
        Plan.load(bad)
    bad.write_text("name: x\nruns:\n  - {fold: 1}\n")
    with pytest.raises(ConfigError, match="with a label"):
        Plan.load(bad)
    bad.write_text("name: x\n")
    with pytest.raises(ConfigError, match="name and runs"):
        Plan.load(bad)
