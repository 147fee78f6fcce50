"""Kept media: nothing unless asked for, and nothing longer than asked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ml.config import load_settings
from serving.keeping import KeptMedia

ID = "0123456789abcdef" * 2
SENT = {"image": b"a picture", "audio": b"a recording"}


def age(folder, days: int) -> None:
    """Let the only day in the folder be so many days old."""
    (day,) = folder.iterdir()
    day.rename(folder / f"date={datetime.now(UTC).date() - timedelta(days=days)}")


def test_nothing_is_kept_unless_it_is_switched_on(tmp_path):
    assert load_settings().serving.keep_media_days == 0
    KeptMedia(tmp_path / "media", 0).keep(ID, SENT)
    KeptMedia(None, 30).keep(ID, SENT)
    assert list(tmp_path.iterdir()) == []


def test_what_was_sent_is_found_by_its_request_untouched(tmp_path):
    media = KeptMedia(tmp_path, 30)
    media.keep(ID, SENT)
    assert media.find(ID) == SENT
    assert media.find("f" * 32) == {}
    assert media.find("../*") == {}


@pytest.mark.parametrize(("days", "kept"), [(0, True), (29, True), (30, False), (400, False)])
def test_what_is_over_goes(tmp_path, days, kept):
    KeptMedia(tmp_path, 30).keep(ID, SENT)
    age(tmp_path, days)
    media = KeptMedia(tmp_path, 30)
    media.sweep()
    assert bool(media.find(ID)) == kept


def test_switched_off_what_was_kept_goes(tmp_path):
    KeptMedia(tmp_path, 30).keep(ID, SENT)
    off = KeptMedia(tmp_path, 0)
    assert off.find(ID) == SENT, "who only reads deletes nothing"
    off.keep(ID, {})
    assert off.find(ID) == {}


@pytest.mark.parametrize("days", [400, -3650], ids=["over", "in the future"])
def test_what_others_put_into_a_day_stays_where_it_is(tmp_path, days):
    KeptMedia(tmp_path, 30).keep(ID, SENT)
    age(tmp_path, days)
    (day,) = tmp_path.iterdir()
    for name in ("holiday.image", "notes.txt", f".{ID}.image.new"):
        (day / name).write_text("another's, but for the draft that a kill left")
    (day / "album").mkdir()
    media = KeptMedia(tmp_path, 1)
    media.sweep()
    assert {path.name for path in day.iterdir()} == {"holiday.image", "notes.txt", "album"}
    assert bool(media.find(ID)) == (days < 0)


def test_a_day_that_a_wrong_clock_put_into_the_future_begins_today(tmp_path):
    KeptMedia(tmp_path, 30).keep(ID, SENT)
    age(tmp_path, -3650)
    media = KeptMedia(tmp_path, 30)
    media.sweep()
    assert media.find(ID) == SENT
    assert [day.name for day in tmp_path.iterdir()] == [f"date={datetime.now(UTC).date()}"]


def test_media_that_cannot_be_written_are_an_error_for_the_caller_to_count(tmp_path):
    place = tmp_path / "media"
    place.write_text("a file stands where the folder should be")
    with pytest.raises(OSError, match="media"):
        KeptMedia(place, 30).keep(ID, SENT)
