"""Drawing a few images of every group: of every city, of every sequence of a video."""

import itertools
import random
from collections.abc import Callable, Iterable


def k_per_group(
    ids: Iterable[str], group_of: Callable[[str], str], k: int, *, seed: int | str
) -> dict[str, tuple[str, ...]]:
    """`k` distinct ids of every group, in random order; groups by name.

    Each group has random numbers of its own, so that leaving a group out changes no other draw, and the draws for
    1, 2, 3 ... ids with the same seed are nested. The order of `ids` does not matter, and a repeated id counts once.

    Raises ValueError for k < 1, for no ids at all, and for a group with fewer than `k` ids, naming it.
    """
    if k < 1:
        raise ValueError(f"At least one id of every group must be drawn; found k = {k}.")
    groups = group_ids(sorted(set(ids)), group_of)
    if not groups:
        raise ValueError("There are no ids to draw from.")
    drawn = {}
    for group, members in sorted(groups.items()):
        if len(members) < k:
            raise ValueError(
                f"Group {group!r} has {len(members)} images, and K = {k} of every group are to be drawn. Choose a "
                "smaller K, or leave the group out."
            )
        # From `random()` alone: the only draw Python promises never to change.
        rng = random.Random(f"{seed}-{group}")
        order = {image_id: rng.random() for image_id in members}
        drawn[group] = tuple(sorted(members, key=order.__getitem__)[:k])
    return drawn


def group_ids(ids: Iterable[str], group_of: Callable[[str], str]) -> dict[str, tuple[str, ...]]:
    """The ids by group, in their order."""
    groups: dict[str, list[str]] = {}
    for image_id in ids:
        groups.setdefault(group_of(image_id), []).append(image_id)
    return {group: tuple(members) for group, members in groups.items()}


def in_turn(ids: Iterable[str], group_of: Callable[[str], str]) -> tuple[str, ...]:
    """The ids with the groups taking turns, so that the first few are not all of one."""
    columns = itertools.zip_longest(*group_ids(ids, group_of).values())
    return tuple(image_id for row in columns for image_id in row if image_id is not None)
