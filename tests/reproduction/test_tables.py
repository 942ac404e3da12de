"""Tables from their descriptions, and README kept in step with results/. About 5 s."""

from itertools import product

import pytest
from scipy import stats

from fsslib.reproduction import tables
from fsslib.reproduction.config import ConfigError
from fsslib.reproduction.plans import Plan
from fsslib.reproduction.tables import Description, descriptions, fill, make


def run(label="A", fold=0, seed=0, *, floors=(), seconds=50, steps=7, rare=None, **miou):
    """A record that was tested in the domains of `miou`, two of whose four classes are rare."""
    per_class = {"road": 0.9, "pole": rare, "sign": rare, "rider": None}
    return {
        "label": label,
        "config": {"fold": fold, "seed": seed, "source": next(iter(miou)), "data": "toy"},
        "classes": {"test": ["a", "b"]},
        "scores": {
            domain: {"miou": value, "episodes": 50, "manifest_sha256": f"{domain} {fold}", "per_class": per_class}
            for domain, value in miou.items()
        },
        "floors": {"everything": 0.1 + 0.01 * fold, "every_object": 0.3, "by_domain": dict(floors)},
        "training": {"steps": steps, "seconds": 40},
        "seconds": seconds,
        "environment": {"device_name": "a processor", "versions": {"torch": "2.6"}},
    }


def five(**gains):
    """Five seeds of each label, this much above 0.4, its rare classes twice as much above 0.1."""
    made = ((label, gain, s) for label, gain in gains.items() for s in range(5))
    return [run(label, seed=s, a=0.4 + gain + 0.001 * s, rare=0.1 + 2 * gain + 0.01 * s) for label, gain, s in made]


GRID = list(product(range(4), range(3)))
TWELVE = [run("A", f, s, a=0.4 + 0.01 * f + 0.001 * s) for f, s in GRID]
DUSK, MARKED = ["dusk", "dusk_all"], {"title": "all", "floor": "everything"}

# What a description makes of runs: its columns, its rows, the runs, and the cells that are expected.
CELLS = {
    "mean and interval from five runs on": (["a"], ["A"], TWELVE, [["A", "41.6 [40.9, 42.3]"]]),
    "points of fewer": (["a"], ["A"], TWELVE[:2], [["A", "40.0"]]),
    "a dash for what was not run": (["b"], ["A", "B"], TWELVE, [["A", "–"], ["B", "–"]]),
    "all labels, in their order": (["a"], ["*"], five(B=0, A=0)[::5], [["B", "40.0"], ["A", "40.0"]]),
    "rare classes, one of them never seen": ([{"rare": "a"}], ["A"], five(A=0.01), [["A", "14.0 [12.0, 16.0]"]]),
    "no rare class": ([{"rare": "a"}], ["A"], TWELVE, [["A", "–"]]),
    "parameters": ([{"score": "a", "where": {"fold": 2, "seed": 1}}], ["A"], TWELVE, [["A", "42.1"]]),
    "the first domain of several": (
        [{"score": DUSK}, {"rare": DUSK}],
        ["A", "all"],
        [run(dusk=0.4, rare=0.1), run("all", dusk_all=0.5, rare=0.2)],
        [["A", "40.0", "10.0"], ["all", "50.0", "20.0"]],
    ),
    "trained in the domain that is asked": (
        ["a", "b"],
        [{"title": "at home", "home": True}],
        [run("A", a=0.4, b=0.3), run("B", b=0.5, a=0.2)],
        [["at home", "40.0", "50.0"]],
    ),
    "floors once a list of questions": (
        ["a", "b"],
        [MARKED, {"title": "objects", "floor": "every_object"}],
        [run(fold=f, seed=s, a=0.4, b=0.3) for f, s in [*GRID, (0, 3)]],
        [["all", "11.5", "11.5"], ["objects", "30.0", "30.0"]],
    ),
    "a row for each domain, with its floor": (
        [{"show": "classes"}, MARKED, {"title": "A", "label": "A"}],
        [{"score": "a"}, {"score": "b"}],
        [run(a=0.4, floors={"a": 0.2}), run(b=0.3, floors={"b": 0.25}), run("B", b=0.9, floors={"b": 0.25})],
        [["a", "2", "20.0", "40.0"], ["b", "2", "25.0", "30.0"]],
    ),
    "how many, and the fastest that was not interrupted": (
        [{"show": "runs"}, {"show": "seconds"}],
        ["A", "B", "C"],
        [run(a=0.4), run(seed=1, a=0.4, seconds=60), run(seed=2, a=0.4, seconds=8), run("B", a=0.4, seconds=8)],
        [["A", "3", "50"], ["B", "1", "–"], ["C", "0", "–"]],
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_is_what_its_row_and_its_column_say(name):
    columns, rows, runs, expected = CELLS[name]
    table = make(Description(title="T", columns=columns, rows=rows), runs)
    assert [list(row) for row in table.rows] == expected
    assert len(table.head) == len(columns) + 1


def test_headings_and_notes_say_what_they_are_of():
    elsewhere = run("B", 1, steps=99, a=0.9) | {"config": {"data": "streets"}}
    runs = [*TWELVE, *(run("B", seed=s, steps=s**2, a=0.5) for s in range(3)), elsewhere]
    note = '{{ folds }} folds, {{ seeds }} seeds, {{ steps.B }} and {{ steps["C, D"] }} steps, {{ seconds.A }} s.'
    columns = ["a", {"score": ["b", "c"]}, {"rare": ["d", "e"]}, {"title": "f", "score": "a"}, {"show": "runs"}]
    table = make(Description(title="T", where={"data": "toy"}, columns=columns, note=note), runs)
    assert table.head == ("", "a", "b", "d, rare classes", "f", "runs")
    assert table.note == "4 folds, 3 seeds, 1 and – steps, 40 s. 50 episodes a run; a processor; torch 2.6."
    assert [row[:2] for row in table.rows][1] == ("B", "50.0")
    filmed = run(a=0.4)
    filmed["scores"]["a"] = {"miou": 0.4, "images": 7}
    assert make(Description(title="T", columns=["a"]), [filmed]).note.startswith(" 7 test images a run; ")


def test_differences_are_paired_and_corrected_together():
    columns = ["a", {"rare": "a"}]
    described = Description(beside="another", columns=columns, differences=[["B", "A"], ["A", "C"], ["A", "D"]])
    table = make(described, five(A=0.01, B=0.03), five(C=0.0)[1:])
    two, four = "+2.0 [+2.0, +2.0] (n=5), p < 0.001", "+4.0 [+4.0, +4.0] (n=5), p < 0.001"
    assert table.rows[0] == ("B minus A", two, four)
    assert table.rows[1][1] == "+1.0 (n=4, too few for an interval)"
    assert table.rows[2] == ("A minus D", "–", "–")
    assert "Holm-corrected over the 2 columns" in table.note
    named = Description(title="T", beside="another", columns=["a"], rows=["C", "*"])
    assert [row[0] for row in make(named, five(A=0), five(C=0, D=0)).rows] == ["C", "A"]
    p = stats.ttest_1samp([0, 1, 4, 9, 16], 0).pvalue
    noisy = [run(label, seed=s, a=0.4 + (label == "B") * 0.01 * s**2, rare=0.1) for label in "AB" for s in range(5)]
    for asked, times in ((columns[:1], 1), (columns, 2)):
        row = make(Description(columns=asked, differences=[["B", "A"]]), noisy).rows[0]
        assert row[1].endswith(f"(n=5), p {times * p:.3f}")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"colums": ["a"]}, "colums"),
        ({"columns": []}, "at least 1 item"),
        ({"columns": [{"lable": "A"}]}, "lable"),
        ({"columns": [{"show": "hours"}]}, "'runs', 'classes' or 'seconds'"),
        ({"columns": [{"rare": "a", "floor": "everything"}]}, "rare: a is a number of its own"),
        ({"differences": [["A"]]}, "at least 2 items"),
    ],
)
def test_a_description_is_strict_and_named(change, said):
    good = {"title": "T", "columns": ["a"]}
    assert descriptions(Plan("p", (), (good,)))[0].title == "T"
    with pytest.raises(ConfigError, match=rf"the tables of the plan p(.|\n)*{said}"):
        descriptions(Plan("p", (), (good | change,)))
    with pytest.raises(ValueError, match="'x' names no domain"):
        make(Description(title="T", columns=[{"title": "x"}]), TWELVE)


def test_markdown_lines_up_and_stars_are_no_emphasis():
    table = tables.Table("title", ("", "x", "y"), (("A*S", "1", "up: 2"), ("r & s", "–", "3")), "note")
    lines = ["|  | x | y |", "| --- | ---: | --- |", r"| A\*S | 1 | up: 2 |", "| r & s | – | 3 |"]
    assert table.markdown().splitlines() == ["**title**", "", *lines, "", "note"]


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
    filled = fill(pages, tables.parts())
    assert [page for page in pages if filled[page] != pages[page]] == [], "run: python -m fsslib.reproduction.tables"
