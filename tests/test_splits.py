"""Who learns and who judges where groups are few, of unequal size, or have labels of their own."""

from collections import Counter, defaultdict
from dataclasses import replace

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


# ------------------------------------------------------------------------------------------------ what is added later

ADDITIONS = st.lists(
    st.dictionaries(
        st.tuples(st.sampled_from([None, *(f"g{n}" for n in range(70)), "new", "newer"]), st.sampled_from("abcxy")),
        st.integers(1, 6),
        min_size=1,
        max_size=6,
    ),
    min_size=1,
    max_size=4,
)


def later(batches: list[dict]) -> list[list[Row]]:
    """Additions, of which every third item has the content of an earlier one of its own person."""
    made = []
    for turn, counts in enumerate(batches, start=1):
        rows = [replace(row, id=f"{turn}/{row.id}", added=f"{turn}") for row in said(counts)]
        made.append([row if n % 3 else replace(row, content=f"{row.content} {turn}") for n, row in enumerate(rows)])
    return made


def published(rows: list[Row]) -> list[Row]:
    """The same with every fourth item in a publisher's test, whose groups are in the rest too."""
    return [replace(row, published="train" if n % 4 else "test") for n, row in enumerate(rows)]


@pytest.mark.parametrize("own", ["people", "two people", "nobody", "published"])
@settings(max_examples=60, deadline=None)
@given(counts=TABLES, batches=ADDITIONS, seed=st.integers(0, 20))
def test_nothing_changes_sides_when_data_are_added(own, counts, batches, seed):
    match own:
        case "people":
            rows = said(counts)
        case "two people":
            rows = said(
                {(group and f"g{int(group[1:]) % 2}", label): count for (group, label), count in counts.items()}
            )
        case "nobody":
            rows = said({(None, label): 30 for _, label in counts})
        case _:
            rows = published(said(counts))
    former: dict[str, str] = {}
    for batch in [[], *later(batches)]:
        rows = [*rows, *batch]
        try:
            division = divide(rows, SHARES, seed)
        except UserError:
            assert not former, "what could be divided before can be divided with more"
            continue
        splits = dict(zip([row.id for row in rows], division.splits, strict=True))
        assert former.items() <= splits.items()
        if division.rule != "shared_groups":
            assert all(len(splits) == 1 for group, splits in sides(rows, division).items() if group)
        former = splits


@pytest.mark.parametrize("people", [None, 12, MANY_GROUPS])
def test_what_is_added_joins_every_split_by_the_same_shares(people):
    own = said({(people and f"g{n}", label): 6 for n in range(people or 50) for label in "ab"})
    more = [replace(row, id=f"1/{row.id}", added="1") for row in said({(f"new {n}", "a"): 2 for n in range(600)})]
    counted = Counter(divide(own + more, SHARES, 0).splits[len(own) :])
    assert {split: round(count / len(more), 1) for split, count in counted.items()} == {
        "train": pytest.approx(0.65, abs=0.06),
        "validation": 0.1,
        "gate": 0.1,
        "test": pytest.approx(0.15, abs=0.06),
    }


def test_more_of_a_person_who_is_known_goes_where_that_person_is():
    own = said({(f"g{n}", label): 5 for n in range(12) for label in "ab"})
    more = [replace(row, id=f"1/{row.id}", content=f"new {n}", added="1") for n, row in enumerate(own)]
    division = divide(own + more, SHARES, 0)
    assert division.splits[: len(own)] == division.splits[len(own) :]


def test_a_label_that_is_added_is_learnt_first_and_judged_where_it_has_enough():
    own = said({(f"g{n}", label): 5 for n in range(12) for label in "ab"})
    for count, expected in ((1, {"train"}), (2, {"train", "test"}), (8, set(SPLITS))):
        more = said({(f"new {n}", "owl"): 3 for n in range(count)})
        rows = own + [replace(row, added="1") for row in more]
        assert where(rows, divide(rows, SHARES, 0))["owl"] == expected


def test_what_is_too_little_at_first_is_divided_with_the_first_addition_that_makes_it_enough():
    own = said({(None, "a"): 2, (None, "b"): 1})
    with pytest.raises(UserError, match="leave the split"):
        divide(own, SHARES, 0)
    more = [replace(row, id=f"1/{row.id}", added="1") for row in said({("ann", "a"): 30, ("bob", "b"): 30})]
    assert set(divide(own + more, SHARES, 0).splits) == set(SPLITS)


def test_a_copy_of_what_the_publisher_tests_with_and_more_of_its_people_are_test_too():
    own = published(said({(None, label): 40 for label in "ab"}))
    copied = next(row for row in own if row.published == "test")
    more = replace(copied, id="1/copy", published=None, added="1")
    assert divide([*own, more], SHARES, 0).splits[-1] == "test"
    apart = [replace(row, group="ann" if row.published == "test" else f"g{n % 9}") for n, row in enumerate(own)]
    more = replace(copied, id="1/more", content="new", published=None, group="ann", added="1")
    assert divide([*apart, more], SHARES, 0).splits[-1] == "test"
