"""Who learns and who judges: train, validation, gate and test, drawn so that what was drawn once stays."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from ml.config import UserError

SPLITS = ("train", "validation", "gate", "test")
FIRST = ("train", "test", "validation", "gate")  # what a label gets that has too few groups or items for all four
MANY_GROUPS = 50  # from here on every group draws for itself, so none moves when others arrive
FEWEST_GROUPS = 4  # one for each split
MANY_OF_A_LABEL = 100
LARGE_SHARE = 0.25  # a group of more than this share of the items learns, whatever it drew; it would be most of a split
GAPS_SHOWN = 3
RECORDING_INDEX = re.compile(r"_(\d+)$")


@dataclass(frozen=True)
class Row:
    """What decides an item's split; `published` is the publisher's split and `content` a digest of what is in it.

    added: when it was added ("" for the source's own), in words that sort by time.
    """

    id: str
    content: str
    label: str
    published: str | None
    group: str | None
    added: str = ""


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
    equal content fall together where no group or published test parts them. Where every label can stand in every split
    it does, if need be by moving whole groups out of train; where a label has too few groups or items it learns first,
    and `about` says what is missing.
    What was added is divided after what was there before, which so never changes sides: it goes where its group or an
    equal content is already, and is drawn by the same shares where that is new.
    Raises UserError where a split comes out empty.
    """
    published = any(row.published == "test" for row in rows)
    if published:
        shares = Shares(shares.validation, shares.gate, 0.0)
    rest = [row for row in rows if row.published != "test"]
    drawn, rule, about = _divide_in_turn(rest, rows, shares, seed)
    splits = ["test" if row.published == "test" else drawn[_key(row)] for row in rows]
    if missing := [split for split in FIRST if split not in splits]:
        raise UserError(
            f"{len(rows)} items leave the split {missing[0]} empty; expected about 20 of every label, "
            "add more or try another data.seed"
        )
    return Division(
        splits, rule, ("the publisher's test, the rest " if published else "") + about + _gaps(rows, splits)
    )


def _divide_in_turn(rest: list[Row], rows: Sequence[Row], shares: Shares, seed: int) -> tuple[dict[str, str], str, str]:
    """The first rows that fill every split by the finest rule they allow, then one addition after the other."""
    wanted = {split for split in SPLITS if split != "test" or shares.test > 0}
    turns = deque(sorted({row.added for row in rest} | {""}))
    first: list[Row] = []
    drawn, rule, about = {}, "", ""
    while turns and not wanted <= set(drawn.values()):
        turn = turns.popleft()
        first += [row for row in rest if row.added == turn]
        drawn, rule, about = _divide_rest(first, rows, shares, seed)
    placed = {name: "test" for row in rows if row.published == "test" for name in (_content(row), _side(row, rule))}
    placed |= {name: drawn[_key(row)] for row in first for name in (_content(row), _side(row, rule))}
    known = {row.label for row in first}
    for turn in turns:
        batch = [row for row in rest if row.added == turn]
        placed |= _placed(batch, placed, known, rule, shares, seed)
        drawn |= {_key(row): placed[_side(row, rule)] for row in batch}
        known |= {row.label for row in batch}
    return drawn, rule, about


def _placed(
    batch: list[Row], placed: Mapping[str, str], known: Set[str], rule: str, shares: Shares, seed: int
) -> dict[str, str]:
    """The splits of the groups and contents of one addition that are not `placed` yet.

    known: the labels that were there before. Of a new one the first units learn, as in a set of its own.
    """
    labels: dict[str, set[str]] = defaultdict(set)
    for row in batch:
        if _side(row, rule) not in placed:
            labels[_side(row, rule)].add(row.label)
    new: dict[str, str] = {}
    for label in sorted({row.label for row in batch} - known):
        units = sorted(unit for unit, own in labels.items() if label in own and unit not in new)
        if len(units) < MANY_OF_A_LABEL:
            new |= _ranked(units, shares, seed)
    new |= {unit: _threshold(draw(seed, unit.removeprefix("\0")), shares) for unit in labels if unit not in new}
    for row in batch:
        if (content := _content(row)) not in placed:
            new.setdefault(content, new.get(_side(row, rule)) or placed[_side(row, rule)])
    return new


def _side(row: Row, rule: str) -> str:
    """What an item is never divided from: its group, where groups are kept together, else its content."""
    return _content(row) if rule == "shared_groups" else _unit(row)


def _content(row: Row) -> str:
    return f"\0{row.content}"


def _gaps(rows: Sequence[Row], splits: Sequence[str]) -> str:
    """The labels that some split lacks, for a person; nothing where there are none."""
    where = defaultdict(set)
    for row, split in zip(rows, splits, strict=True):
        where[row.label].add(split)
    gaps = [
        f"{label!r} only in {' and '.join(split for split in FIRST if split in there)}"
        for label, there in sorted(where.items())
        if len(there) < len(SPLITS)
    ]
    more = f" and {len(gaps) - GAPS_SHOWN} labels more" if len(gaps) > GAPS_SHOWN else ""
    return f"; too few to fill every split: {', '.join(gaps[:GAPS_SHOWN])}{more}" if gaps else ""


def _divide_rest(rest: list[Row], rows: Sequence[Row], shares: Shares, seed: int) -> tuple[dict[str, str], str, str]:
    groups = sorted({row.group for row in rest if row.group})
    tested = {row.group for row in rows if row.published == "test" and row.group}
    if tested & set(groups):
        about = "by recording index, because the groups of that test are in the rest too"
        return _by_index(rest, shares, seed), "shared_groups", about
    alone = f"{len(groups)} groups cannot fill four splits"
    if len(groups) >= FEWEST_GROUPS:
        how = "each drawn for itself" if len(groups) >= MANY_GROUPS else "cut in the order of their draw"
        if drawn := _by_group(rest, groups, shares, seed):
            return drawn, "groups", f"by group, {how}"
        alone = "its groups have labels of their own, and by group some label would never be learnt"
    if groups:
        return _by_item(rest, shares, seed), "shared_groups", f"by item within each label, because {alone}"
    return _by_item(rest, shares, seed), "items", "by item within each label"


def _key(row: Row) -> str:
    return f"{row.group or ''}\0{row.content}\0{row.id}"


def _by_group(rest: list[Row], groups: list[str], shares: Shares, seed: int) -> dict[str, str] | None:
    """Every group on one side; an item whose group is unknown stands for itself and is drawn by content.

    None where that leaves a split empty or a label out of train.
    """
    sizes = Counter(row.group for row in rest if row.group)
    large = {group for group in groups if sizes[group] > LARGE_SHARE * sizes.total()}
    if len(groups) >= MANY_GROUPS:
        split_of = {g: "train" if g in large else _threshold(draw(seed, g), shares) for g in groups}
    else:
        split_of = _ranked(groups, shares, seed, {group: sizes[group] for group in large})
    split_of |= {_unit(row): _threshold(draw(seed, row.content), shares) for row in rest if not row.group}
    if (filled := _filled(rest, split_of, shares, seed)) is None:
        return None
    return {_key(row): filled[_unit(row)] for row in rest}


def _unit(row: Row) -> str:
    """What is never divided: a group, or a content whose group is unknown."""
    return row.group or _content(row)


def _filled(rest: list[Row], drawn: Mapping[str, str], shares: Shares, seed: int) -> dict[str, str] | None:
    """The split of every unit after units were moved to where a label is missing, the smallest first.

    A move to train may take a label out of another split, for what never learns cannot be judged; no other move may.
    None where a split stays empty or a label out of train.
    """
    split_of, sizes, labels = dict(drawn), Counter(_unit(row) for row in rest), defaultdict(set)
    for row in rest:
        labels[_unit(row)].add(row.label)
    holders = Holders(split_of, labels)
    wanted = [split for split in FIRST if split != "test" or shares.test > 0]  # else the publisher's
    for split in wanted:
        for label in holders.missing(split):
            able = [unit for unit in holders.of(label) if holders.may_leave(unit, split)]
            order = sorted(able, key=lambda u: (split_of[u] != "train", sizes[u], draw(seed, u)))
            if order:
                holders.move(order[0], split)
    whole = set(wanted) <= set(split_of.values()) and not list(holders.missing("train"))
    return split_of if whole else None


class Holders:
    """Which units (groups, lone contents) hold which label in which split; `move` changes `split_of` itself."""

    def __init__(self, split_of: dict[str, str], labels: Mapping[str, set[str]]):
        self._split_of, self._labels = split_of, labels
        self._units = defaultdict(set)
        for unit, own in labels.items():
            for label in own:
                self._units[label].add(unit)
        self._count = Counter((label, split_of[unit]) for unit, own in labels.items() for label in own)

    def missing(self, split: str) -> Iterator[str]:
        """Labels that this split lacks when their turn comes, those of the fewest units first."""
        for label in sorted(self._units, key=lambda label: (len(self._units[label]), label)):
            if not self._count[label, split]:
                yield label

    def of(self, label: str) -> set[str]:
        return self._units[label]

    def may_leave(self, unit: str, to: str) -> bool:
        """Whether it is to learn, or its split has other units of each of its labels."""
        at = self._split_of[unit]
        return to == "train" or all(self._count[label, at] > 1 for label in self._labels[unit])

    def move(self, unit: str, to: str) -> None:
        at, self._split_of[unit] = self._split_of[unit], to
        for label in self._labels[unit]:
            self._count[label, at] -= 1
            self._count[label, to] += 1


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


def _ranked(keys: Sequence[str], shares: Shares, seed: int, large: Mapping[str, int] | None = None) -> dict[str, str]:
    """Keys in order of their draw, cut by the shares; a share above 0 gets at least one, and train keeps the rest.

    large: sizes of the keys that come last, into train where others are enough. Too few keys learn first.
    """
    last = large or {}
    order = sorted(keys, key=lambda key: (last.get(key, 0), draw(seed, key)))
    sizes = {"test": shares.test, "validation": shares.validation, "gate": shares.gate}
    cut = [split for split, share in sizes.items() if share > 0 for _ in range(max(1, round(share * len(keys))))]
    if len(keys) <= len(sizes):
        cut.insert(0, "train")
    return {key: cut[place] if place < len(cut) else "train" for place, key in enumerate(order)}
