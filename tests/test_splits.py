"""Who learns and who judges where groups are few, of unequal size, or have labels of their own."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.config import UserError
from ml.datasets.splits import LARGE_SHARE, MANY_GROUPS, SPLITS, Division, Row, Shares, divide

SHARES = Shares(validation=0.1, gate=0.1, test=0.15)


def said(counts: dict[tuple[str | None, str], int]) -> list[Row]:
    """So many items of every (group, label)."""
    return [
        Row(f"{label}-{group}-{n}", f"content {label} {group} {n}", label, None, group)
        for (group, label), count in counts.items()
        for n in range(count)
    ]


def where(rows: list[Row], division: Division) -> dict[str, set[str]]:
    """The splits that every label stands in."""
    found = defaultdict(set)
    for row, split in zip(rows, division.splits, strict=True):
        found[row.label].add(split)
    return found


def sides(rows: list[Row], division: Division) -> dict[str, set[str]]:
    found = defaultdict(set)
    for row, split in zip(rows, division.splits, strict=True):
        found[row.group].add(split)
    return found


TABLES = st.dictionaries(
    st.tuples(st.sampled_from([f"g{n}" for n in range(70)]), st.sampled_from("abcd")), st.integers(1, 6), min_size=8
)


@settings(max_examples=150, deadline=None)
@given(counts=TABLES, seed=st.integers(0, 20))
def test_whatever_the_groups_say_every_label_is_learnt_and_nobody_is_on_two_sides(counts, seed):
    rows = said(counts)
    try:
        division = divide(rows, SHARES, seed)
    except UserError:
        assert len(rows) < 60, "enough for every split"
        return
    assert set(division.splits) == set(SPLITS)
    assert all("train" in splits for splits in where(rows, division).values())
    assert division.rule in ("groups", "shared_groups")
    if division.rule == "groups":
        assert all(len(splits) == 1 for splits in sides(rows, division).values())


@pytest.mark.parametrize("groups", [10, MANY_GROUPS + 5])
@pytest.mark.parametrize("seed", range(10))
def test_a_label_of_few_groups_stands_in_every_split_by_whole_groups(groups, seed):
    rows = said({(f"g{n}", label): 5 for n in range(groups) for label in ("a", *(["rare"] if n < 4 else []))})
    division = divide(rows, SHARES, seed)
    assert where(rows, division) == {"a": set(SPLITS), "rare": set(SPLITS)}
    assert division.rule == "groups"
    assert "too few" not in division.about


@pytest.mark.parametrize("seed", range(10))
def test_a_label_that_one_group_alone_has_is_learnt_and_the_set_says_that_nobody_judges_it(seed):
    rows = said({(f"g{n}", "a"): 5 for n in range(8)} | {("g3", "rare"): 5})
    division = divide(rows, SHARES, seed)
    assert where(rows, division) == {"a": set(SPLITS), "rare": {"train"}}
    assert division.about.endswith("; too few to fill every split: 'rare' only in train")


def test_groups_with_labels_of_their_own_are_divided_by_item_and_the_set_says_why():
    rows = said({(f"g{n}", f"label {n}"): 20 for n in range(6)})
    division = divide(rows, SHARES, 0)
    assert division.rule == "shared_groups"
    assert "its groups have labels of their own" in division.about
    assert all(splits == set(SPLITS) for splits in where(rows, division).values())


@pytest.mark.parametrize("others", [6, MANY_GROUPS])
@pytest.mark.parametrize("seed", range(10))
def test_a_group_that_has_most_of_the_items_learns(others, seed):
    rows = said({("loud", "a"): 600} | {(f"g{n}", "a"): 3 for n in range(others)})
    division = divide(rows, SHARES, seed)
    assert sides(rows, division)["loud"] == {"train"}
    shares = {split: count / len(rows) for split, count in Counter(division.splits).items()}
    assert max(share for split, share in shares.items() if split != "train") < LARGE_SHARE


def test_too_few_items_of_a_label_are_learnt_before_they_are_judged():
    rows = said({(None, "a"): 30, (None, "three"): 3, (None, "two"): 2, (None, "one"): 1})
    found = where(rows, divide(rows, SHARES, 0))
    assert found["three"] == {"train", "test", "validation"}
    assert found["two"] == {"train", "test"}
    assert found["one"] == {"train"}
    about = divide(rows, SHARES, 0).about
    assert "'one' only in train, 'three' only in train and test and validation, 'two' only in train and test" in about


def test_the_labels_that_some_split_lacks_are_named_and_many_of_them_counted():
    rows = said({(None, "a"): 30} | {(None, f"only {n}"): 1 for n in range(7)})
    assert divide(rows, SHARES, 0).about.endswith("'only 2' only in train and 4 labels more")
