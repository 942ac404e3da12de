"""The class ids that the real data sets share. Under a second."""

import pytest

from fsslib.data import pascal
from fsslib.data.names import ALIASES, CLASS_IDS, CLASS_NAMES, class_id, named


def test_ids_are_one_to_one_and_fit_a_byte():
    assert len(CLASS_IDS) == len(set(CLASS_IDS.values())) == len(CLASS_NAMES)
    assert min(CLASS_NAMES) == 1
    assert max(CLASS_NAMES) < 255


def test_voc_keeps_the_numbers_of_its_label_maps():
    assert {number: CLASS_NAMES[number] for number in range(1, 21)} == pascal.CLASS_NAMES


def test_coco_follows_with_sixty_more():
    assert (class_id("truck"), class_id("toothbrush"), class_id("road")) == (21, 80, 81)


def test_other_names_of_a_class_are_the_same_class():
    assert class_id("tv") == class_id("tvmonitor") == 20
    assert all(name not in CLASS_IDS and true in CLASS_IDS for name, true in ALIASES.items())
    with pytest.raises(KeyError):
        class_id("unicorn")


def test_named_keeps_order():
    assert list(named([20, 1]).items()) == [(20, "tvmonitor"), (1, "aeroplane")]
