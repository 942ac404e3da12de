"""The harness of `make bench`, and what it wrote. Measuring needs an idle machine and is no test. About 10 s."""

import json
import time

import pytest
import torch

from fsslib import paths
from fsslib.data.toyworld import DOMAINS
from fsslib.reproduction.environment import cpu_cores
from tests.benchmarks.measure import Case, Drawing, Evaluating, cases, drawing_rate, has_bf16_instructions, measure


def sleeping():
    return (lambda: time.sleep(0.06)), (lambda: time.sleep(0.02))


def hoarding():
    """One way takes 10 MB, the other 300 MB."""
    return (lambda: torch.ones(10, 2**18)), (lambda: torch.ones(300, 2**18))


def test_a_ratio_is_of_medians_taken_in_turns():
    found = measure(Case("nap", "naps", "long", "short", 3, None, sleeping), turns=3)
    assert found.ratio == pytest.approx(3, rel=0.25)
    assert found.ratio_range[0] <= found.ratio <= found.ratio_range[1]
    assert found.baseline_per_second == pytest.approx(50, rel=0.2)
    assert found.contender_per_second == pytest.approx(150, rel=0.25)
    assert found.baseline_peak_bytes is None


def test_memory_is_each_ways_own():
    found = measure(Case("heap", "heaps", "small", "large", 1, None, hoarding, memory=True), turns=1)
    assert found.contender_peak_bytes - found.baseline_peak_bytes > 200 * 2**20


def test_both_ways_do_the_same_work():
    one_by_one, batch = Drawing("night", 3)()
    alone, (images, maps) = one_by_one(), batch()
    torch.testing.assert_close(torch.cat([image for image, _ in alone]), images)
    assert torch.equal(torch.cat([class_map for _, class_map in alone]), maps)
    for drawing in (True, False):
        singly, batched = Evaluating("mask", drawing, 6)()
        assert singly().compute() == batched().compute()


def test_the_cases_are_those_of_the_results_file():
    found = json.loads((paths.project_root() / "results" / "bench.json").read_text())
    assert [case["name"] for case in found["cases"]] == [case.name for case in cases()]
    assert set(found["drawing_images_per_second"]) == set(DOMAINS)
    assert found["bf16_instructions"] in (True, False)
    assert isinstance(has_bf16_instructions(), bool)


def test_all_cores_draw():
    start = time.perf_counter()
    rate = drawing_rate("photo", 4, turns=1)
    # One turn was measured and one was not: the measured one took no longer than both and the start of the workers.
    assert rate > cpu_cores() * 4 / (time.perf_counter() - start)
