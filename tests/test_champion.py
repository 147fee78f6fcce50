"""The champion's pointer, its history and the way back, over real stored models."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait

import dagster as dg
import pytest
import tones
from renewal import ROOT
from served import another_model

from ml.config import Paths, UserError
from ml.evaluation import Decision
from ml.predictor import models_digest
from ml.predictor.bundle import PARTS
from orchestration import champion, promotion, reigns
from orchestration.champion import KEPT, PROMOTED, ROLLED_BACK, roll_back
from orchestration.resources import Project
from serving import packaging


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> tuple[Paths, list[dict]]:
    """Three models in a store."""
    paths = Paths(tmp_path_factory.mktemp("models"), "starter")
    first = packaging.Champion(packaging.save_bundle_as_bento_model(tones.bundle(), paths), _digest(tones.bundle()))
    others = [another_model(tmp_path_factory.mktemp("other"), paths, temperature) for temperature in (1.5, 0.7)]
    described = [
        {"tag": one.tag, "digest": one.digest, "data": {"raw_audio": f"{number}" * 32}, "weights": f"w{number}"}
        for number, one in enumerate([first, *others])
    ]
    return paths, described


def _digest(bundle) -> str:
    return json.loads((bundle / "manifest.json").read_text())["digest"]


@pytest.fixture
def paths(stored, tmp_path) -> Paths:
    (tmp_path / "models").mkdir()
    shutil.copytree(stored[0].bentoml, tmp_path / "models" / "bentoml")
    return Paths(tmp_path, "starter")


@pytest.fixture
def models(stored) -> list[dict]:
    return stored[1]


def promote(paths: Paths, model: dict, reason: str = "better") -> None:
    champion.appoint(paths, model, PROMOTED, reason, "run", packaging.read_pointer(paths))


def at_work(paths: Paths) -> str:
    pointer = packaging.read_pointer(paths)
    assert pointer
    return pointer["digest"]


def test_a_rollback_takes_up_the_one_before_and_keeps_the_reason(paths, models):
    for model in models:
        promote(paths, model)
    pointer = roll_back(paths, "quieter words are missed")
    assert pointer["digest"] == models[1]["digest"]
    assert pointer["previous"]["digest"] == models[0]["digest"], "whom a service falls back to, and not the withdrawn"
    assert [row["event"] for row in champion.history(paths)] == [PROMOTED] * 3 + [ROLLED_BACK]
    assert champion.reigns(paths)[0]["why"] == "quieter words are missed"
    assert [one["digest"] for one in champion.withdrawn(paths)] == [models[2]["digest"]]


def test_another_step_back_goes_further_back_and_the_first_has_nothing_behind_it(paths, models):
    for model in models:
        promote(paths, model)
    assert roll_back(paths, "worse")["digest"] == models[1]["digest"]
    assert roll_back(paths, "worse still")["digest"] == models[0]["digest"]
    with pytest.raises(UserError, match="no former champion"):
        roll_back(paths, "worse still")
    promote(paths, models[1])
    assert roll_back(paths, "again")["digest"] == models[0]["digest"], "not to one that was withdrawn"


def test_a_version_can_be_named_and_taking_it_up_again_ends_its_withdrawal(paths, models):
    for model in models:
        promote(paths, model)
    roll_back(paths, "worse", models[0]["digest"][:10])
    assert at_work(paths) == models[0]["digest"]
    roll_back(paths, "it was the microphone", models[2]["tag"].partition(":")[2])
    assert at_work(paths) == models[2]["digest"]
    assert [one["digest"] for one in champion.withdrawn(paths)] == [models[0]["digest"]]


@pytest.mark.parametrize(
    ("to", "reason", "said"),
    [
        (None, " ", "needs a reason"),
        ("nothing-like-it", "worse", "expected one of the former champions, got 0"),
        ("", "worse", "no former champion"),
    ],
)
def test_a_wrong_word_changes_nothing_and_is_told_in_one_line(paths, models, to, reason, said):
    promote(paths, models[0])
    before = paths.champion.read_bytes(), champion.history_file(paths).read_bytes()
    with pytest.raises(UserError, match=said):
        roll_back(paths, reason, to)
    assert (paths.champion.read_bytes(), champion.history_file(paths).read_bytes()) == before


def test_the_champion_that_stands_cannot_be_rolled_back_to(paths, models):
    promote(paths, models[0])
    with pytest.raises(UserError, match="is the champion already"):
        roll_back(paths, "worse", models[0]["tag"])


@pytest.mark.parametrize("harm", ["damaged", "gone"])
def test_a_model_that_is_not_whole_is_never_taken_up(paths, models, harm):
    for model in models[:2]:
        promote(paths, model)
    bundle = packaging.stored_bundle(models[0]["tag"], paths)
    if harm == "gone":
        shutil.rmtree(bundle.parent)
    else:
        (bundle / "image_classifier" / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match=r"weights.safetensors: changed|no such model"):
        roll_back(paths, "worse")
    assert at_work(paths) == models[1]["digest"]


def test_a_champion_whose_files_are_gone_is_named_and_a_rollback_helps(paths, models):
    for model in models[:2]:
        promote(paths, model)
    shutil.rmtree(packaging.stored_bundle(models[1]["tag"], paths).parent)
    with pytest.raises(UserError, match=rf"{models[1]['tag']} is gone .* `seehear rollback`"):
        champion.usable_pointer(paths)
    assert roll_back(paths, "its files are gone")["digest"] == models[0]["digest"]
    assert champion.usable_pointer(paths)["digest"] == models[0]["digest"]


@pytest.mark.parametrize("harm", ["gone", "half", "another shape"])
def test_a_pointer_that_says_nothing_is_named_and_a_rollback_writes_it_anew(paths, models, harm):
    for model in models[:2]:
        promote(paths, model)
    if harm == "gone":
        paths.champion.unlink()
    else:
        paths.champion.write_text('{"tag": "seeh' if harm == "half" else "[1]")
    with pytest.raises(UserError, match=r"champion.json.*`seehear rollback"):
        champion.usable_pointer(paths)
    assert roll_back(paths, "the pointer was lost")["digest"] == models[1]["digest"], "it was the champion"
    assert champion.usable_pointer(paths)["digest"] == models[1]["digest"]


def test_a_line_of_the_history_cut_short_by_a_kill_is_skipped_and_the_next_one_stands_alone(paths, models):
    promote(paths, models[0])
    with champion.history_file(paths).open("a") as file:
        file.write('{"at": "2026')
    promote(paths, models[1])
    assert [row["digest"] for row in champion.history(paths)] == [model["digest"] for model in models[:2]]


def test_a_pointer_from_before_there_was_a_history_is_its_beginning(paths, models):
    old = {"since": "2026-01-02T00:00:00+00:00", "reason": "the first champion"}
    pointer = {**models[1], **old, "previous": {**models[0], **old, "since": "2026-01-01T00:00:00+00:00"}}
    champion.write_pointer(paths, pointer)
    assert [row["champion"] for row in champion.reigns(paths)] == [models[1]["tag"], models[0]["tag"]]
    promote(paths, models[2])
    assert len(champion.history(paths)) == 3
    assert roll_back(paths, "worse")["digest"] == models[1]["digest"]


def test_the_history_is_a_table_and_a_plot_that_name_data_and_reason(paths, models):
    for model in models:
        promote(paths, model, f"better | in {model['weights']}")
    champion.keep(paths, {"at": "2026-01-01T00:00:00+00:00", "event": KEPT, "reason": "tie", **models[0]})
    roll_back(paths, "worse")
    plot = reigns.write_history(paths, Project().now())
    table = (plot.parent / "history.md").read_text()
    assert plot.stat().st_size > 5_000
    assert table.count("\n| seehear:") == 4
    assert "raw_audio 11111111" in table
    assert "better \\| in w1" in table


def test_a_model_whose_promotion_a_kill_cut_short_never_reigned_and_no_rollback_goes_to_it(paths, models, monkeypatch):
    def killed(*_) -> None:
        raise KeyboardInterrupt

    promote(paths, models[0])
    with monkeypatch.context() as kill:
        kill.setattr(champion, "write_pointer", killed)
        with pytest.raises(KeyboardInterrupt):
            promote(paths, models[1])
    assert [row["champion"] for row in champion.reigns(paths)] == [models[0]["tag"]]
    with pytest.raises(UserError, match="no former champion"):
        roll_back(paths, "worse")
    promote(paths, models[2])
    assert [row["champion"] for row in champion.reigns(paths)] == [models[2]["tag"], models[0]["tag"]]
    assert roll_back(paths, "worse")["digest"] == models[0]["digest"]


def test_writers_of_the_pointer_do_not_tear_each_other_s_drafts(paths, models):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(champion.write_pointer, [paths] * 100, (models * 34)[:100]))
    assert at_work(paths) in [model["digest"] for model in models]
    assert list(paths.champion.parent.glob(".*.part")) == []


def test_a_rollback_waits_for_a_promotion_and_goes_back_from_that_one(paths, models):
    for model in models[:2]:
        promote(paths, model)
    with ThreadPoolExecutor(1) as pool:
        with champion.one_at_a_time(paths):
            waiting = pool.submit(roll_back, paths, "worse")
            wait([waiting], timeout=0.3)
            promote(paths, models[2])
        assert waiting.result()["digest"] == models[1]["digest"]


def test_a_challenger_whose_opponent_was_rolled_back_meanwhile_is_judged_again(project, paths, models, monkeypatch):
    """The judgement is a stand-in; all around it is real."""

    def judged(_, __, former):
        against.append(former.digest)
        if len(against) == 2:
            return Decision(False, "worse"), None
        roll_back(paths, "quiet words")
        return Decision(True, "better"), None

    against: list[str] = []

    for model in models[1:]:
        promote(paths, model)
    offer(paths, models[0]["digest"])
    monkeypatch.setattr(promotion, "_judged", judged)
    outcome = promotion.consider(Project(root=str(project)))
    assert (outcome.promoted, outcome.reason) == (False, "worse")
    assert against == [models[2]["digest"], models[1]["digest"]]
    assert at_work(paths) == outcome.pointer["digest"] == models[1]["digest"]
    assert [row["event"] for row in champion.history(paths)] == [PROMOTED, PROMOTED, ROLLED_BACK, KEPT]


@pytest.mark.parametrize("lost", ["files", "code", "rate"])
def test_a_champion_that_can_no_longer_be_asked_stands_in_no_way(project, paths, models, monkeypatch, lost):
    """The judgement is a stand-in; that the champion is not part of it is real."""
    promote(paths, models[1])
    bundle = packaging.stored_bundle(models[1]["tag"], paths)
    if lost == "files":
        shutil.rmtree(bundle.parent)
    elif lost == "code":  # its network had another shape
        alter_card(bundle / "speech_extractor", lambda card: card["arguments"].update(channels=20))
    offer(paths, models[0]["digest"])
    if lost == "rate":
        for part in promotion.candidate_parts(paths, "cnn")[1:]:
            alter_card(part, lambda card: card.update(sample_rate_hz=11025))
        file = paths.reports / "evaluation.json"
        digest = models_digest(*promotion.candidate_parts(paths, "cnn"))
        file.write_text(json.dumps(json.loads(file.read_text()) | {"models": digest}))
    asked = []
    monkeypatch.setattr(promotion, "_judged", lambda *given: asked.append(given[2]) or (Decision(False, "weak"), None))
    with pytest.raises(UserError, match=rf"no champion: weak; the champion before .*{WHY[lost]}"):
        promotion.consider(Project(root=str(project)))
    assert asked == [None]


@pytest.mark.parametrize("harm", ["gone", "changed"])
def test_a_champion_that_is_not_whole_is_told_and_storing_the_same_models_mends_it(paths, harm):
    tag = packaging.save_bundle_as_bento_model(tones.bundle(), paths)
    promote(paths, {"tag": tag, "digest": _digest(tones.bundle())})
    assert champion.is_whole(paths)
    bundle = packaging.stored_bundle(tag, paths)
    if harm == "gone":
        shutil.rmtree(bundle.parent)
    else:
        (bundle / "image_classifier" / "weights.safetensors").write_bytes(b"x")
    assert not champion.is_whole(paths)
    assert packaging.save_bundle_as_bento_model(tones.bundle(), paths) == tag
    assert champion.is_whole(paths)


WHY = {"files": "no such model", "code": "", "rate": f"hears {tones.RATE_HZ} Hz, the data are of 11025 Hz"}


def alter_card(folder, change) -> None:
    file = folder / "model.json"
    card = json.loads(file.read_text())
    change(card)
    file.write_text(json.dumps(card))


def offer(paths: Paths, digest: str) -> None:
    """The models of `tones` as candidates that were evaluated."""
    for part, place in zip(PARTS, promotion.candidate_parts(paths, "cnn"), strict=True):
        shutil.copytree(tones.bundle() / part, place)
    settings = {"image_classifier": {}, "speech_extractor": {}, "speech_classifier": {"cnn": {}}}
    report = {"models": digest, "speech": {"chosen": "cnn"}, "settings": settings, "gate": {}, "data": {}, "seed": 0}
    paths.reports.mkdir()
    (paths.reports / "evaluation.json").write_text(json.dumps(report))


@pytest.mark.parametrize("same", ["digest", "weights", "made_of"])
def test_a_model_that_was_rolled_back_stays_out_until_it_differs_or_is_taken_up_again(paths, models, same):
    told = [{**model, "made_of": f"m{number}"} for number, model in enumerate(models[:2])]
    for model in told:
        promote(paths, model)
    roll_back(paths, "quiet words")
    again = {"digest": "another", "weights": "another", "made_of": "another"}
    assert promotion.stays_out(paths, again) == ""
    reason = promotion.stays_out(paths, again | {same: told[1][same]})
    assert "quiet words" in reason
    assert told[1]["tag"] in reason
    roll_back(paths, "it was the microphone", told[1]["tag"])
    assert promotion.stays_out(paths, again | {same: told[1][same]}) == ""


# the command


def seehear(root, *words: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "SEEHEAR_ROOT": str(root)}
    command = [sys.executable, "-m", "serving.cli", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture
def project(paths):
    shutil.copy(ROOT / "params.yaml", paths.root)
    return paths.root


def test_the_command_says_in_one_line_why_it_cannot(project):
    assert "--reason" in seehear(project, "rollback").stderr
    done = seehear(project, "rollback", "--reason", "worse")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == "seehear: there is no former champion to go back to"
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_command_takes_the_former_champion_up_and_the_lineage_shows_it(project, paths, models):
    """A minute: Dagster runs the job, and the Bento is built anew."""
    for model in models[:2]:
        promote(paths, model)
    done = seehear(project, "rollback", "--reason", "quiet words are missed")
    assert done.returncode == 0, done.stderr[-2000:]
    assert models[0]["tag"] in done.stdout
    assert at_work(paths) == models[0]["digest"]
    with dg.DagsterInstance.local_temp(str(project / "var" / "dagster")) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("champion"))
        made = event.asset_materialization
        assert made.tags["dagster/data_version"] == models[0]["digest"]
        assert made.metadata["reason"].value == "rolled back: quiet words are missed"
    assert packaging.bento_of(models[0]["tag"], paths)
