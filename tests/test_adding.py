"""Data added later: shards that amend each other, the command that writes them, and what becomes stale."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import commit_all, copy_checkout, project_environment
from hypothesis import given, settings
from hypothesis import strategies as st
from test_lineage import BY_THEMSELVES, record, stale

from ml import media
from ml.config import MODALITIES, Paths, UserError
from ml.datasets import raw_digest
from ml.sources import added
from ml.sources.shards import SCHEMA, Item, Listing, added_shards, amended_batches, item_batches, write_shards
from orchestration.assets.added import Amendment, _amended, _written
from orchestration.dvc import DvcPipeline
from orchestration.launch import changed_additions
from orchestration.mending import dvc_hash
from orchestration.resources import Project

REPOSITORY = Path(__file__).resolve().parents[1]
TAKEN = "images/a/new.png"


def picture(seed: int) -> bytes:
    return media.encode_png(np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8))


def sound(seed: int) -> bytes:
    return media.encode_wav(np.random.default_rng(seed).uniform(-0.5, 0.5, 800), 8000)


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def stored(paths: Paths, modality: str = "images") -> dict[str, tuple[bytes, str]]:
    """Bytes and label of every item, by id."""
    batches = item_batches(paths, modality, ("id", "bytes", "label"))
    return {row["id"]: (row["bytes"], row["label"]) for _, batch in batches for row in batch.to_pylist()}


def tracked(addition: added.Addition) -> Path:
    """The shard of an addition, with what `dvc add` writes beside it."""
    assert addition.file is not None
    out = {"md5": dvc_hash(addition.file), "path": addition.file.name}
    addition.file.with_name(f"{addition.file.name}.dvc").write_text(json.dumps({"outs": [out]}))
    return addition.file


@pytest.fixture
def paths(tmp_path) -> Paths:
    """Six stored pictures, of label a and b in turn, and six recordings."""
    paths = Paths(tmp_path / "project", "folder")
    for modality, content in (("images", picture), ("audio", sound)):
        items = [Item(f"{n}", content(n), "ab"[n % 2], group=f"g{n}") for n in range(6)]
        write_shards(paths.raw(modality), "folder", Listing(items, 6, "own"), shard_rows=4)
    return paths


# how shards amend each other

rows = st.lists(st.tuples(st.integers(0, 9), st.one_of(st.none(), st.binary(max_size=3))), max_size=8)


@settings(max_examples=60, deadline=None)
@given(base=st.sets(st.integers(0, 9), min_size=1), later=st.lists(rows, max_size=4), batch=st.integers(1, 5))
def test_of_rows_with_one_id_the_last_counts_and_one_without_bytes_removes(tmp_path_factory, base, later, batch):
    folder = tmp_path_factory.mktemp("shards")
    expected = {f"{n}": b"base" for n in base}
    files = []
    for number, shard in enumerate([[(n, b"base") for n in sorted(base)], *later]):
        columns = {"id": [f"{n}" for n, _ in shard], "bytes": [content for _, content in shard]}
        table = pa.table({name: columns.get(name, [None] * len(shard)) for name in SCHEMA.names}, schema=SCHEMA)
        files.append(folder / f"{number}.parquet")
        pq.write_table(table, files[-1])
        for name, content in zip(columns["id"], columns["bytes"], strict=True):
            expected.pop(name, None)
            if content is not None:
                expected[name] = content
    found = amended_batches(files[:1], files[1:], ("id", "bytes"), batch)
    got = [(row["id"], row["bytes"]) for _, part in found for row in part.to_pylist()]
    assert len(got) == len(dict(got))
    assert dict(got) == expected


def test_a_shard_counts_from_the_moment_dvc_tracks_it(paths, tmp_path):
    own = write_folder(tmp_path / "own", {TAKEN: picture(50)})
    (addition,) = added.add_folder(paths, own)
    assert len(stored(paths)) == 6
    assert added.unfinished(paths, "images") == [addition.file]
    tracked(addition)
    assert len(stored(paths)) == 7
    assert added.unfinished(paths, "images") == []


def test_a_tracked_shard_that_is_not_here_is_never_passed_over(paths, tmp_path):
    (addition,) = added.add_folder(paths, write_folder(tmp_path / "own", {TAKEN: picture(50)}))
    tracked(addition).unlink()
    with pytest.raises(UserError, match=r"an added shard that is not here; run `.venv/bin/dvc pull"):
        stored(paths)


def test_the_raw_digest_covers_what_was_added(paths, tmp_path):
    former = raw_digest(paths.raw("images"), added_shards(paths, "images"))
    tracked(added.add_folder(paths, write_folder(tmp_path / "own", {TAKEN: picture(50)}))[0])
    assert raw_digest(paths.raw("images"), added_shards(paths, "images")) != former


def test_the_version_is_the_hash_dvc_gives_a_folder_of_the_shards(paths, tmp_path):
    assert added.version(paths, "images") is None
    for seed in (50, 51):
        own = write_folder(tmp_path / f"own{seed}", {TAKEN: picture(seed)})
        tracked(added.add_folder(paths, own)[0])
    alone = tmp_path / "alone"
    alone.mkdir()
    for file in added_shards(paths, "images"):
        shutil.copy(file, alone)
    assert added.version(paths, "images") == dvc_hash(alone)


# adding, removing, relabelling


def test_what_is_added_keeps_its_bytes_label_and_speaker(paths, tmp_path):
    files = {"images/ä/x.png": picture(50), "audio/ä/anna/x.wav": sound(50)}
    additions = added.add_folder(paths, write_folder(tmp_path / "own", files))
    assert [addition.modality for addition in additions] == ["images", "audio"]
    for addition, content in zip(additions, files.values(), strict=True):
        (row,) = pq.read_table(tracked(addition)).to_pylist()
        assert (row["bytes"], row["label"]) == (content, "ä")
        assert row["group"] == ("anna" if addition.modality == "audio" else None)


def test_adding_the_same_folder_again_adds_only_what_is_new(paths, tmp_path):
    own = write_folder(tmp_path / "own", {TAKEN: picture(50), "images/b/new.png": picture(51)})
    tracked(added.add_folder(paths, own)[0])
    (again,) = added.add_folder(paths, own)
    assert (again.file, again.known) == (None, 2)
    write_folder(own, {"images/b/another.png": picture(52)})
    (third,) = added.add_folder(paths, own)
    assert (third.rows, third.known) == (1, 2)


def test_what_was_measured_before_counts_as_stored(paths, tmp_path):
    from data_checks.facts import measure_shards

    measure_shards(paths.raw("images"), "images", paths.facts("images"))
    own = write_folder(tmp_path / "own", {"images/a/copy.png": picture(0), TAKEN: picture(50)})
    (addition,) = added.add_folder(paths, own)
    assert (addition.rows, addition.known) == (1, 1)


def test_what_is_stored_and_not_measured_yet_counts_as_well(paths, tmp_path):
    own = write_folder(tmp_path / "own", {"images/a/copy.png": picture(0), TAKEN: picture(50)})
    (addition,) = added.add_folder(paths, own)
    assert (addition.rows, addition.known) == (1, 1)
    with pytest.raises(UserError, match="the same bytes are 0, labelled 'a'; use `seehear relabel images 0 b`"):
        added.add_folder(paths, write_folder(tmp_path / "other", {"images/b/copy.png": picture(0)}))


def test_what_was_removed_may_come_back(paths, tmp_path):
    own = write_folder(tmp_path / "own", {TAKEN: picture(50)})
    tracked(added.add_folder(paths, own)[0])
    (name,) = set(stored(paths)) - set("012345")
    gone = added.remove(paths, "images", [name, "0", "0"])
    tracked(gone)
    assert gone.removed == 2
    assert set(stored(paths)) == set("12345")
    (back,) = added.add_folder(paths, own)
    tracked(back)
    assert back.rows == 1
    assert len(stored(paths)) == 6


def test_a_relabelled_item_keeps_everything_else(paths):
    former = stored(paths)
    rows_of = {row["id"]: row for _, batch in item_batches(paths, "images") for row in batch.to_pylist()}
    tracked(added.relabel(paths, "images", {"0": "b"}))
    assert stored(paths) == former | {"0": (former["0"][0], "b")}
    (row,) = [row for _, batch in item_batches(paths, "images") for row in batch.to_pylist() if row["id"] == "0"]
    assert row == rows_of["0"] | {"label": "b"}
    assert added.relabel(paths, "images", {"0": "b"}).file is None
    tracked(added.relabel(paths, "images", {"0": " a\u0308 "}))
    assert stored(paths)["0"][1] == "ä"


def test_the_history_tells_what_every_shard_did(paths, tmp_path):
    tracked(added.add_folder(paths, write_folder(tmp_path / "own", {TAKEN: picture(50)}))[0])
    tracked(added.relabel(paths, "images", {"0": "b", "1": "a"}))
    tracked(added.remove(paths, "images", ["2"]))
    told = [(step["added"], step["changed"], step["removed"]) for step in added.history(paths, "images")]
    assert told == [(1, 0, 0), (0, 2, 0), (0, 0, 1)]


@pytest.mark.parametrize(
    ("files", "lines"),
    [
        (
            {TAKEN: picture(50), "images/a/bad.png": b"no picture", "audio/b/cut.wav": sound(9)[:30]},
            ["images/a/bad.png: cannot be decoded", "audio/b/cut.wav: "],
        ),
        (
            {"images/a/x.png": picture(50), "images/b/y.png": picture(50)},
            ["images/b/y.png: the same bytes are images/a/x.png, labelled 'a'; keep one of them"],
        ),
        ({"letters/a/x.png": picture(50)}, ["holds neither images/<label>/* nor audio/<label>/*"]),
    ],
)
def test_bad_files_are_named_line_by_line_and_nothing_at_all_is_written(paths, tmp_path, files, lines):
    with pytest.raises(UserError) as refused:
        added.add_folder(paths, write_folder(tmp_path / "own", files))
    said = str(refused.value).splitlines()
    assert len(said) == len(lines)
    assert all(line in text for line, text in zip(lines, said, strict=True))
    assert not [file for modality in MODALITIES for file in paths.added(modality).glob("*")]


def test_a_label_that_contradicts_a_stored_one_is_refused_with_the_command_that_changes_it(paths, tmp_path):
    tracked(added.add_folder(paths, write_folder(tmp_path / "own", {TAKEN: picture(50)}))[0])
    (name,) = set(stored(paths)) - set("012345")
    with pytest.raises(UserError, match=f"seehear relabel images {name} b"):
        added.add_folder(paths, write_folder(tmp_path / "other", {"images/b/new.png": picture(50)}))


def test_items_that_are_nowhere_cannot_be_removed_or_relabelled(paths):
    for call in (lambda: added.remove(paths, "images", ["0", "x"]), lambda: added.relabel(paths, "images", {"x": "a"})):
        with pytest.raises(UserError, match=r"^x: no such item among the images of folder$"):
            call()


def test_one_run_does_one_thing():
    with pytest.raises(UserError, match=r"^run config: folder, remove: expected one of them at a time$"):
        _written(Project(root="nowhere"), Amendment(folder="own", remove=["0"]))


# the command, on a real project: DVC, git and a Dagster instance


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A fresh clone with six stored pictures and recordings, everything recorded as made of them."""
    root = copy_checkout(tmp_path_factory.mktemp("adding") / "project")
    commit_all(root)
    for modality, content in (("images", picture), ("audio", sound)):
        items = [Item(f"{n}", content(n), "ab"[n % 2]) for n in range(6)]
        write_shards(Paths(root, "folder").raw(modality), "folder", Listing(items, 6, "own"), shard_rows=4)
    with instance_of(root) as instance:
        graph = definitions().resolve_asset_graph()
        versions: dict = {}
        for key in graph.toposorted_asset_keys:
            if key not in BY_THEMSELVES:
                first = added.NOTHING if key.path[-1].startswith("added_") else "first"
                record(instance, graph, key, first, versions)
    return root


def definitions() -> dg.Definitions:
    from orchestration.definitions import defs

    return defs


def instance_of(root: Path) -> dg.DagsterInstance:
    home = root / "var" / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(REPOSITORY / "orchestration" / "dagster.yaml", home / "dagster.yaml")
    return dg.DagsterInstance.from_config(str(home))


def seehear(root: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "serving.cli", *words],
        cwd=root,
        env=project_environment(root) | {"SEEHEAR_SOURCE": "folder"},
        capture_output=True,
        text=True,
        check=False,
    )


def remote_files(root: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in (root / "data" / "remote").rglob("*") if file.is_file()}


def changed_in_git(root: Path) -> list[str]:
    done = subprocess.run(
        ["git", "status", "--porcelain", "-uall"], cwd=root, capture_output=True, text=True, check=True
    )
    return [line[3:] for line in done.stdout.splitlines()]


def test_adding_makes_stale_exactly_what_hangs_on_it_and_moves_only_new_bytes(project, tmp_path):
    own = write_folder(tmp_path / "own", {TAKEN: picture(70), "images/b/new.png": picture(71)})
    done = seehear(project, "add", str(own))
    assert done.returncode == 0, done.stderr
    assert "images: 2 added (a 1, b 1)" in done.stdout
    assert "stale now: raw_images, image_dataset, image_classifier" in done.stdout
    paths = Paths(project, "folder")
    (shard,) = added_shards(paths, "images")
    assert changed_in_git(project) == [f"{shard.relative_to(project)}.dvc"]
    assert list(remote_files(project).values()) == [shard.stat().st_size]
    with instance_of(project) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("added_images"))
        assert event.asset_materialization.tags["dagster/data_version"] == added.version(paths, "images")
        assert stale(instance, definitions().resolve_asset_graph()) == {"raw_images"}
    again = seehear(project, "add", str(own))
    assert (again.returncode, "nothing new" in again.stdout) == (1, True)
    assert len(added_shards(paths, "images")) == 1


def test_what_a_stage_has_read_is_told_though_more_was_added_since(project, tmp_path):
    paths = Paths(project, "folder")
    before = sorted(paths.added("images").glob("*.dvc"))
    dvc = DvcPipeline(paths)
    dvc.reproduce("facts@images")
    assert dvc.shards_of("facts@images") == before
    for number in (72, 73):
        own = write_folder(tmp_path / f"own{number}", {f"images/b/new{number}.png": picture(number)})
        assert seehear(project, "add", str(own)).returncode == 0
        assert dvc.shards_of("facts@images") == before
    assert added.version_of(sorted(paths.added("images").glob("*.dvc"))) == added.version(paths, "images")
    dvc.reproduce("facts@images")
    assert dvc.shards_of("facts@images") == sorted(paths.added("images").glob("*.dvc")) != before


def test_a_repeated_addition_takes_up_what_a_killed_one_left(project, tmp_path, monkeypatch):
    monkeypatch.setenv("SEEHEAR_SOURCE", "folder")
    paths = Paths(project, "folder")
    former = len(stored(paths))
    own = write_folder(tmp_path / "own", {"images/a/late.png": picture(80), "images/b/late.png": picture(81)})
    (left,) = added.add_folder(paths, own)  # killed before DVC knew of it
    done = _amended(Project(root=str(project)), Amendment(folder=str(own)))
    assert (done["images"].file, done["images"].known) == (left.file, 2)
    assert left.file in added_shards(paths, "images")
    assert len(stored(paths)) == former + 2


def test_removing_and_relabelling_are_one_more_small_shard_each(project):
    paths = Paths(project, "folder")
    former, shards = stored(paths, "audio"), len(added_shards(paths, "audio"))
    assert seehear(project, "remove", "audio", "0", "1").returncode == 0
    assert seehear(project, "relabel", "audio", "2", "b").returncode == 0
    now = stored(paths, "audio")
    assert set(now) == set(former) - {"0", "1"}
    assert now["2"] == (former["2"][0], "b")
    assert len(added_shards(paths, "audio")) == shards + 2


def test_another_commit_s_additions_are_noticed(project, monkeypatch):
    monkeypatch.setenv("SEEHEAR_SOURCE", "folder")
    with instance_of(project) as instance:
        assert changed_additions(Project(root=str(project)), instance) == set()
        last = max(Paths(project, "folder").added("audio").glob("*.parquet.dvc"))
        content = last.read_text()
        last.unlink()
        assert changed_additions(Project(root=str(project)), instance) == {"added_audio"}
        last.write_text(content)
