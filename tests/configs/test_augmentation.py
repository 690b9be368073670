import pytest

from configs import augmentation
from data import sampling, scan

KNOWN = (*scan.CATEGORIES, "demo")


def test_the_table_holds_every_category_and_the_demo():
    assert set(augmentation._TABLE) == set(KNOWN)


@pytest.mark.parametrize("category", KNOWN)
def test_what_is_allowed_can_be_drawn_and_has_a_reason(category):
    flip, rotation, reason = augmentation.of(category)
    assert isinstance(flip, bool) and reason
    assert sampling.quarter_turns(rotation)


def test_a_mirror_image_that_is_a_defect_is_none_of_a_good_part():
    """Left-hand threads, nuts upside down, swapped wires, print."""
    for category in ("screw", "metal_nut", "cable", "pill", "capsule"):
        assert not augmentation.of(category).flip
    for category in ("screw", "metal_nut", "hazelnut"):
        assert augmentation.of(category).rotation == 90
    for category in ("wood", "grid", "carpet"):
        assert augmentation.of(category).rotation == 180


def test_of_an_unknown_category_nothing_is_assumed_and_the_flags_are_named():
    flip, rotation, reason = augmentation.of("gearbox")
    assert not flip and rotation == 0
    for part in ("gearbox", "--config.data.flip=True", "--config.data.rotation=90"):
        assert part in reason
