"""Who learns and who judges: train, validation, gate and test, drawn so that what was drawn once stays."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ml.config import UserError

SPLITS = ("train", "validation", "gate", "test")
MANY_GROUPS = 50  # from here on every group draws for itself, so none moves when others arrive
FEWEST_GROUPS = 4  # one for each split
MANY_OF_A_LABEL = 100
RECORDING_INDEX = re.compile(r"_(\d+)$")


@dataclass(frozen=True)
class Row:
    """What decides an item's split; `published` is the publisher's split and `content` a digest of what is in it."""

    id: str
    content: str
    label: str
    published: str | None
    group: str | None


@dataclass(frozen=True)
class Shares:
    validation: float
    gate: float
    test: float


@dataclass(frozen=True)
class Division:
    """The split of every row, and the rule it was drawn by.

    rule: "groups" (each on one side only), "items" (no groups are known) or "shared_groups" (groups on several sides).
    about: the same in words, for a person.
    """

    splits: list[str]
    rule: str
    about: str


def divide(rows: Sequence[Row], shares: Shares, seed: int) -> Division:
    """Split rows: the publisher's test stays test, the rest is divided by the finest rule the data allow.

    Groups (speakers, writers) stay on one side where there are at least four that no published test shares. Items with
    equal content always fall together. Raises UserError where a split comes out empty.
    """
    published = any(row.published == "test" for row in rows)
    if published:
        shares = Shares(shares.validation, shares.gate, 0.0)
    rest = [row for row in rows if row.published != "test"]
    drawn, rule, about = _divide_rest(rest, rows, shares, seed)
    splits = ["test" if row.published == "test" else drawn[_key(row)] for row in rows]
    if missing := [split for split in SPLITS if split not in splits]:
        raise UserError(
            f"{len(rows)} items leave the split {missing[0]} empty; expected about 20 of every label, "
            "add more or try another data.seed"
        )
    return Division(splits, rule, ("the publisher's test, the rest " if published else "") + about)


def _divide_rest(rest: list[Row], rows: Sequence[Row], shares: Shares, seed: int) -> tuple[dict[str, str], str, str]:
    groups = sorted({row.group for row in rest if row.group})
    tested = {row.group for row in rows if row.published == "test" and row.group}
    if tested & set(groups):
        about = "by recording index, because the groups of that test are in the rest too"
        return _by_index(rest, shares, seed), "shared_groups", about
    if len(groups) >= MANY_GROUPS:
        return _by_group(rest, shares, seed), "groups", "by group, each drawn for itself"
    if len(groups) >= FEWEST_GROUPS:
        return _by_few_groups(rest, groups, shares, seed), "groups", "by group, cut in the order of their draw"
    if groups:
        about = f"by item within each label, because {len(groups)} groups cannot fill four splits"
        return _by_item(rest, shares, seed), "shared_groups", about
    return _by_item(rest, shares, seed), "items", "by item within each label"


def _key(row: Row) -> str:
    return f"{row.group or ''}\0{row.content}\0{row.id}"


def _by_group(rest: list[Row], shares: Shares, seed: int) -> dict[str, str]:
    return {_key(row): _threshold(draw(seed, row.group or row.content), shares) for row in rest}


def _by_few_groups(rest: list[Row], groups: list[str], shares: Shares, seed: int) -> dict[str, str]:
    """Every split gets at least one group; an item whose group is unknown is drawn by content."""
    split_of = _ranked(groups, shares, seed)
    return {
        _key(row): split_of[row.group] if row.group else _threshold(draw(seed, row.content), shares) for row in rest
    }


def _by_index(rest: list[Row], shares: Shares, seed: int) -> dict[str, str]:
    """The lowest recording indices validate, the next ones gate; what has no index is drawn by content."""
    found = {row.id: int(match[1]) for row in rest if (match := RECORDING_INDEX.search(row.id))}
    indices = sorted(set(found.values()))
    first, second = int(shares.validation * len(indices)), int(shares.gate * len(indices))
    split_of = {
        index: "validation" if place < first else "gate" if place < first + second else "train"
        for place, index in enumerate(indices)
    }
    return {
        _key(row): split_of[found[row.id]] if row.id in found else _threshold(draw(seed, row.content), shares)
        for row in rest
    }


def _by_item(rest: list[Row], shares: Shares, seed: int) -> dict[str, str]:
    """Within each label: each content drawn for itself where there are many, in order of the draw where few."""
    contents = defaultdict(set)
    for row in rest:
        contents[row.label].add(row.content)
    split_of: dict[str, str] = {}
    for own in contents.values():
        if len(own) >= MANY_OF_A_LABEL:
            split_of |= {content: _threshold(draw(seed, content), shares) for content in own}
        else:
            split_of |= _ranked(sorted(own), shares, seed)
    return {_key(row): split_of[row.content] for row in rest}


def draw(seed: int, key: str) -> float:
    """A number in [0, 1) that depends on the seed and this key alone."""
    return int.from_bytes(hashlib.sha256(f"seed {seed}: {key}".encode()).digest()[:8]) / 2**64


def _threshold(number: float, shares: Shares) -> str:
    if number < shares.test:
        return "test"
    if number < shares.test + shares.validation:
        return "validation"
    return "gate" if number < shares.test + shares.validation + shares.gate else "train"


def _ranked(keys: Sequence[str], shares: Shares, seed: int) -> dict[str, str]:
    """Keys in order of their draw, cut by the shares; a share above 0 gets at least one, and train keeps the rest."""
    order = sorted(keys, key=lambda key: draw(seed, key))
    sizes = {"test": shares.test, "validation": shares.validation, "gate": shares.gate}
    cut = [split for split, share in sizes.items() if share > 0 for _ in range(max(1, round(share * len(keys))))]
    return {key: cut[place] if place < len(cut) else "train" for place, key in enumerate(order)}
