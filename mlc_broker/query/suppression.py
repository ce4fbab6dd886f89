"""Small groups are left out across organizations, and so that no sum gives them away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

R = TypeVar("R", bound=Mapping[str, Any])


def suppress(
    rows: Sequence[R],
    minimum_group: int,
    *,
    dimensions: Sequence[str] = (),
    people: str = "people",
) -> list[R]:
    """Return the rows that may be shown, in their order.

    A row of fewer than `minimum_group` people is left out (`people` names the field that counts
    them). Where the rows left out of a line of the table (all alike but for one of `dimensions`)
    are so few that the line's total would tell about them, further rows of it are left out, the
    smallest first: complementary suppression. Without `dimensions` all rows are one line.
    """
    hidden = {at for at, row in enumerate(rows) if row[people] < minimum_group}
    lines = _lines(rows, dimensions)
    while hidden and any(_protected(line, rows, hidden, minimum_group, people) for line in lines):
        pass  # what was hidden in one line may be alone in another
    return [row for at, row in enumerate(rows) if at not in hidden]


def _lines(rows: Sequence[R], dimensions: Sequence[str]) -> list[list[int]]:
    if not dimensions:
        return [list(range(len(rows)))]
    found: dict[tuple[Any, ...], list[int]] = {}
    for along in dimensions:
        for at, row in enumerate(rows):
            others = tuple((name, row.get(name)) for name in dimensions if name != along)
            found.setdefault((along, others), []).append(at)
    return list(found.values())


def _protected(
    line: Sequence[int], rows: Sequence[R], hidden: set[int], minimum_group: int, people: str
) -> bool:
    """Hide more of a line until its hidden rows protect each other; whether any was hidden now."""
    changed = False
    while True:
        mine = [at for at in line if at in hidden]
        together = sum(rows[at][people] for at in mine)
        visible = [at for at in line if at not in hidden]
        if not mine or not visible or (len(mine) > 1 and together >= minimum_group):
            return changed
        hidden.add(min(visible, key=lambda at: (rows[at][people], at)))
        changed = True
