"""The claims and their verdicts: the file is sound, the rule is kept, and notebooks print the same words. About 5 s."""

import json
import re
import subprocess
import sys

import nbformat
import pytest
import yaml
from pydantic import ValidationError

from fsslib import paths
from fsslib.reproduction import claims
from fsslib.reproduction.claims import Claim, judge, load_claims
from fsslib.reproduction.plans import Plan
from fsslib.reproduction.result import UNITS, Selector, chosen
from fsslib.reproduction.tables import claims_summary, claims_table

CLAIMS = load_claims()
TESTS = [test for claim in CLAIMS for test in claim.tests]
PAIR = {"label": "a", "baseline": "b", "columns": ["night"], "unit": "draw"}
TOY = PAIR | {"world": "toy world", "plan": "p", "fixed": "before"}

FROZEN = "fcd7e1ba8c468e1d357ce9e48b54a6f75d87e8f0055ede821b6fd3671b069302"
"""Of the comparisons as they were written down before the first run on a split or a draw. Another comparison is a new
question: it gets `fixed: after` unless its runs are yet to be made, and a new hash here."""


def claim(**changes):
    return Claim(id="x", paper="RtD", claim="It helps.", tests=[TOY | changes])


def runs(gain, *, pairs, source="photo", **config):
    return [
        {
            "label": label,
            "config": {"fold": 0, "seed": seed, "source": source} | config,
            "scores": {"night": {"miou": 0.4 + 0.001 * seed + gain * (label == "a") * (1 + 0.1 * (seed % 3))}},
        }
        for label in ("a", "b")
        for seed in range(pairs)
    ]


@pytest.mark.parametrize(
    ("gain", "pairs", "word"),
    [
        (0.05, 10, "holds"),
        (-0.05, 10, "does not hold"),
        (0.05, 9, "inconclusive"),
        (0.05, 4, "inconclusive"),
        (0.002, 10, "no effect"),
        (0.0, 9, "inconclusive"),
        (0.05, 0, "not run"),
    ],
)
def test_the_rule_is_ten_pairs_and_a_sign(monkeypatch, gain, pairs, word):
    made = {plan: [run for run in runs(gain, pairs=pairs) if run["label"] == label] for plan, label in ("pa", "qb")}
    monkeypatch.setattr(claims, "results_of", made.get)
    (line,) = judge(claim(beside="q"))
    assert (line.word, len(line.gaps), line.interval is None) == (word, pairs, pairs == 0)
    if pairs:
        assert line.interval.mean == pytest.approx(100 * gain * (1 + 0.1 * sum(s % 3 for s in range(pairs)) / pairs))
        assert (line.interval.low is None) == (pairs < 5)


def test_only_pairs_count_and_only_of_the_source(monkeypatch):
    found = runs(0.05, pairs=10, source="gta5")[:-3] + runs(-0.05, pairs=10, source="synthia")
    monkeypatch.setattr(claims, "results_of", lambda plan: found)
    lines = {source: judge(claim(where={"source": source}))[0] for source in ("gta5", "synthia")}
    assert (lines["gta5"].interval.n, lines["gta5"].word) == (7, "inconclusive")
    assert (lines["synthia"].word, lines["synthia"].test.compared) == ("does not hold", "a minus b, from synthia")


def test_columns_are_corrected_together_and_rare_classes_are_a_column(monkeypatch):
    found = runs(0.0, pairs=10)
    for run in found:
        ahead = run["label"] == "a"
        noise = 0.01 * (-1) ** run["config"]["seed"] * ahead
        rare = {"pole": 0.1 + 0.02 * ahead, "road": 0.9, "rider": None}
        run["scores"]["night"] = {"miou": 0.5 + 0.008 * ahead + noise}
        run["scores"]["dusk"] = {"miou": 0.5 + noise, "per_class": rare}
    monkeypatch.setattr(claims, "results_of", lambda plan: found)
    (line,) = judge(claim())
    assert (line.interval.p < 0.05, line.word) == (True, "holds")
    columns = ["night", "dusk", {"title": "rare", "rare": "dusk"}]
    words = {line.column: line.told for line in judge(claim(columns=columns))}
    assert words == {"night": "inconclusive, needs n = 11", "dusk": "no effect", "rare": "holds"}
    for run in found:  # with less noise ten would find a point, and this is less than one
        run["scores"]["night"]["miou"] -= 0.001 * (-1) ** run["config"]["seed"] * (run["label"] == "a")
    told = {line.column: line.told for line in judge(claim(columns=columns))}
    assert told["night"] == "inconclusive, near the margin"
    found[0]["scores"]["dusk"]["per_class"] = {"pole": None, "road": 0.9}
    assert [len(line.gaps) for line in judge(claim(columns=columns))] == [10, 10, 9]


@pytest.mark.parametrize(
    ("gains", "words"),
    [
        ({"night": 0.05, "dusk": 0.05}, {"night": "holds", "dusk": "holds"}),
        ({"night": 0.05, "dusk": 0.001}, {"night": "holds", "dusk": "not testable here"}),
        ({"night": -0.05, "dusk": 0.05}, {"night": "not testable here", "dusk": "holds"}),
        ({"night": None, "dusk": 0.05}, {"night": "not run", "dusk": "holds"}),
    ],
)
def test_what_its_control_does_not_show_to_work_is_not_judged(monkeypatch, gains, words):
    found, seen = {"p": runs(0.04, pairs=10), "c": runs(0.0, pairs=10)}, [c for c, gain in gains.items() if gain]
    for run in found["p"]:
        run["scores"]["dusk"] = run["scores"]["night"]
    for run in found["c"]:
        shown = {c: 0.3 + (gains[c] + 0.001 * (run["config"]["seed"] % 3)) * (run["label"] == "a") for c in seen}
        run["scores"] = {c: {"miou": miou} for c, miou in shown.items()}
    monkeypatch.setattr(claims, "results_of", found.get)
    columns = ["night", "dusk"]
    control = PAIR | {"plan": "c", "columns": columns, "shows": "it does something"}
    lines = judge(claim(columns=columns, control=control))
    assert {line.column: line.word for line in lines} == words
    assert [line.told for line in lines if line.word == "not testable here"] == [
        f"not testable here: {line.control.interval}" for line in lines if line.word == "not testable here"
    ]
    # The only column of a control counts everywhere; without a control all is judged.
    lines = judge(claim(columns=columns, control=control | {"columns": ["dusk"]}))
    assert [line.word for line in lines] == [words["dusk"]] * 2
    assert [line.word for line in judge(claim(columns=columns))] == ["holds", "holds"]


def test_the_comparisons_are_those_that_were_written_down_before_the_runs():
    assert claims.comparisons_sha256(CLAIMS) == FROZEN
    changed = [CLAIMS[0].model_copy(update={"claim": "Other words."}), *CLAIMS[1:]]
    assert claims.comparisons_sha256(changed) == FROZEN
    test = CLAIMS[0].tests[0]
    for update in ({"unit": "draw"}, {"label": "other"}, {"control": None}, {"columns": test.columns[:1]}):
        tests = [test.model_copy(update=update), *CLAIMS[0].tests[1:]]
        assert claims.comparisons_sha256([CLAIMS[0].model_copy(update={"tests": tests}), *CLAIMS[1:]]) != FROZEN


def test_each_world_is_told_in_numbers(capsys):
    lines = [line for x in CLAIMS for line in judge(x)]
    found = claims.counted(lines)
    assert sum(sum(words.values()) for words in found.values()) == sum(len(test.columns) for test in TESTS)
    assert all(tuple(words) == claims.WORDS for words in found.values())
    told = subprocess.run([sys.executable, "-m", claims.__name__, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(told.stdout) == found
    for world, words in found.items():
        assert f"{world}, {sum(words.values())} comparisons: " in claims.in_numbers(lines)


def test_an_empty_results_file_does_not_hide_the_shipped_one(tmp_path, monkeypatch):
    own, shipped = tmp_path / "results" / "p.json", tmp_path / "shipped" / "p.json"
    monkeypatch.setattr(paths, "project_root", lambda: tmp_path)
    monkeypatch.setattr(paths, "shipped", lambda _: shipped.parent)
    theirs, mine = [{"label": "theirs"}], [{"label": "mine"}]
    for path, rows in ((own, []), (shipped, theirs), (own, mine)):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"runs": rows}))
        assert claims.results_of("p") == rows


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tests": [TOY | {"columns": []}]}, "at least 1 item"),
        ({"tests": [TOY | {"colums": ["night"]}]}, "colums"),
        ({"tests": [TOY | {"world": "toy"}]}, "small real data"),
        ({"difference": "8.2"}, "valid number"),
        ({"paper": "SG One"}, "'SG-One', 'RtD' or 'PixDA'"),
    ],
)
def test_a_claim_is_strict(change, said, tmp_path):
    good = {"id": "x", "paper": "RtD", "claim": "It helps.", "difference": 8.2, "tests": [TOY]}
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump({"claims": [good]}))
    assert load_claims(path)[0].says == "+8.2"
    path.write_text(yaml.safe_dump({"claims": [good | change]}))
    with pytest.raises(ValidationError, match=said):
        load_claims(path)
    path.write_text(yaml.safe_dump({"claims": [good, good]}))
    with pytest.raises(ValueError, match="same id: x"):
        load_claims(path)


def numbers_of_units(configs, unit) -> set:
    return {tuple(config[name] for name in UNITS[unit]) for config in configs}


@pytest.mark.parametrize("name", sorted({test.plan for test in TESTS}))
def test_every_test_is_of_runs_that_are_planned_once_and_of_columns_that_exist(name):
    for test in (test for test in TESTS if test.plan == name):
        plans = [Plan.load(plan).runs for plan in (name, test.beside) if plan]
        planned = [{"label": label, "config": config.model_dump()} for runs in plans for label, config in runs]
        for label in (test.label, test.baseline):
            configs = [run["config"] for run in chosen(planned, Selector(label=label, where=test.where))]
            assert configs, f"{name} has no runs labelled {label}"
            runs = [tuple(config[name] for name in UNITS["draw"]) for config in configs]
            assert len(runs) == len(set(runs)), f"{label}: runs that differ in more than fold, draw and seed"
            if test.world != "full data" and name != "pixda_streets_camvid":
                assert len(numbers_of_units(configs, test.unit)) >= 10, f"{label} has too few units for a verdict"
        for run in chosen(claims.results_of(name), Selector(label=test.label, where=test.where)):
            assert all(column.domain(run) for column in test.columns), test


@pytest.mark.parametrize(
    ("notebook", "other_names"),
    [
        ("50_remember_the_difference.ipynb", {}),
        ("70_pixda.ipynb", {"mIoU": "cities", "rare third": "rare classes of cities"}),
    ],
)
def test_notebooks_say_the_same_of_the_same_runs(notebook, other_names):
    cells = nbformat.read(paths.shipped("notebooks") / notebook, as_version=4).cells
    text = "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))
    printed, compared = {}, ""
    for line in text.splitlines():
        if " minus " in line:
            compared = re.sub(r"^(?:(?! minus ).)+?: ", "", line)
        elif found := re.match(r"  (\w[\w ]*?) +(\S+ \[.*?\] \(n=\d+\)).*: ([a-z ]+)$", line):
            printed[compared, other_names.get(found[1], found[1])] = found[2], found[3]
    judged = [line for x in CLAIMS for line in judge(x) if line.interval and line.test.world == "toy world"]
    both = [line for line in judged if (line.test.compared, line.column) in printed]
    assert len(both) >= 8
    for line in both:
        assert printed[line.test.compared, line.column] == (str(line.interval), line.word), line.test


def test_the_paper_s_figures_are_those_of_its_ablation():
    rows = {"BS": 57.4, "Cons": 62.8, "Cons+MEnS": 63.5, "MEnS+MEnT": 62.5, "all": 65.6}
    steps = [(x.difference, t) for x in CLAIMS if x.steps_alike for t in x.tests if t.plan == "toy_splits"]
    assert len(steps) == 5
    for difference, test in steps:
        assert difference == pytest.approx(rows[test.label] - rows[test.baseline])


def test_the_tables_have_every_claim_and_every_verdict():
    table, summary = claims_table(), claims_summary()
    judged = [line for x in CLAIMS for line in judge(x)]
    assert [row[-1] for row in table.rows] == [line.told for line in judged]
    assert [row[0] for row in table.rows if row[0]] == [row[0] for row in summary.rows]
    assert {row[0].partition(":")[0] for row in claims_table("PixDA").rows if row[0]} == {"PixDA"}
    whole = next(row for row in summary.rows if row[0].startswith("RtD: The whole method"))
    assert whole[1].startswith("+8.2: 65.6 against 57.4")
    holds = [
        f"{line.column} ({line.interval.mean:+.1f})"
        for line in judged
        if line.claim.id == "rtd_whole" and line.test.plan == "toy_splits" and line.word == "holds"
    ]
    assert len(holds) == 3
    assert f"all minus BS: holds in {', '.join(holds)}" in whole[2]
    assert whole[2].endswith("n = 12")
