"""`make run`: materialize what is missing or stale, print the results, and ask the packaged service."""

import json
import signal
import sys
from collections.abc import Iterator, Set
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContext
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from ml.config import MODALITIES, SPEECH_KINDS, Paths, UserError, project_root
from ml.files import turn_at
from orchestration import champion, runs
from orchestration.resources import Project
from serving.cli.group import ended_in_order


def main() -> int:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # in the background; Dagster would have SIGTERM ignored too
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        root = project_root()
        runs.prepare_instance(root)
        materialize(root)
        show_results(root)
        with ended_in_order():  # the service has a session of its own, which no signal to this one reaches
            ask_service(root)
    except UserError as fault:
        print(f"seehear: {fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("seehear: stopped; the next `make run` goes on from here", file=sys.stderr)
        return 130
    return 0


def materialize(root: Path) -> list[str]:
    """Launch the job `lineage` on what is missing or stale, until nothing is; the assets launched, in order.

    Raises UserError with the reason of the step that failed, or where another launch is at work in this folder.
    """
    from orchestration.definitions import defs

    launched: list[str] = []
    project = Project(root=str(root))
    with _alone(project), dg.DagsterInstance.get() as instance:
        while due := due_assets(defs, instance, _to_be_done(defs, project, instance)):
            if repeated := sorted({key.to_user_string() for key in due} & set(launched)):
                raise UserError(f"{', '.join(repeated)}: still stale after a run; see `make ui` for the cause")
            runs.run_job(defs.resolve_job_def("lineage"), instance, asset_selection=due)
            launched += [key.to_user_string() for key in due]
    print(f"{len(launched)} assets materialized" if launched else "everything is up to date", file=sys.stderr)
    return launched


@contextmanager
def _alone(project: Project) -> Iterator[None]:
    """No other launch in this folder meanwhile: both would write the same models and wait for the same processors."""
    held = ExitStack()
    try:
        held.enter_context(turn_at(project.paths.var / "launch.lock", wait=False))
    except BlockingIOError:
        raise UserError(f"{project.root}: another `make run` is at work here; wait until it ends, or stop it") from None
    with held:
        yield


def due_assets(
    defs: dg.Definitions, instance: dg.DagsterInstance, changed: Set[str] = frozenset()
) -> list[dg.AssetKey]:
    """Assets of the job `lineage`, in the order of the flow, that Dagster calls missing or stale, or whose files
    changed; without those whose inputs may yet change, which come due once they did."""
    graph = defs.resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, loading_context=_Loading(instance))
    keys = defs.resolve_job_def("lineage").asset_layer.executable_asset_keys
    due: list[dg.AssetKey] = []
    affected: set[dg.AssetKey] = set()  # due, or downstream of what is
    for key in (key for key in graph.toposorted_asset_keys if key in keys):
        moving = graph.get(key).parent_keys & affected
        stale = key.to_user_string() in changed or resolver.get_status(key) != StaleStatus.FRESH
        if stale and moving <= set(due):
            due.append(key)
        if stale or moving:
            affected.add(key)
    return due


class _Loading(LoadingContext):
    """The smallest scope in which Dagster answers questions about staleness outside of its web server."""

    def __init__(self, instance: dg.DagsterInstance):
        self._instance, self._loaders = instance, {}

    @property
    def instance(self) -> dg.DagsterInstance:
        return self._instance

    @property
    def loaders(self) -> dict:
        return self._loaders


def _changed_on_disk(project: Project) -> set[str]:
    """Assets whose files no longer are what Dagster recorded: removed, or changed behind DVC's back."""
    from orchestration.assets.data import DATASETS

    datasets = {f"prepared@{modality}": DATASETS[modality] for modality in MODALITIES}
    stages = project.dvc.outdated()
    return gone(project.paths) | {datasets.get(stage, f"raw_{stage.partition('@')[2]}") for stage in stages}


def gone(paths: Paths) -> set[str]:
    """Assets whose models, report or Bento were removed or damaged; of the Bento, the champion's own."""
    files = {
        "image_classifier": paths.candidates / "image_classifier" / "model.json",
        **{
            f"speech_classifier/{kind}": paths.candidates / "speech_classifier" / kind / "model.json"
            for kind in SPEECH_KINDS
        },
        "speech_extractor": paths.candidates / "speech_extractor" / "model.json",
        "evaluation_report": paths.reports / "evaluation.json",
    }
    missing = {name for name, file in files.items() if not file.exists()}
    missing |= set() if champion.is_whole(paths) else {"champion"}
    return missing | (set() if _has_bento(paths) else {"bento"})


def _has_bento(paths: Paths) -> bool:
    from serving import packaging

    try:
        return bool(packaging.bento_of(packaging.read_champion(paths).tag, paths))
    except UserError:
        return False


def _to_be_done(defs: dg.Definitions, project: Project, instance: dg.DagsterInstance) -> set[str]:
    return _changed_on_disk(project) | changed_additions(project, instance) | stopped_at(defs, instance)


def stopped_at(defs: dg.Definitions, instance: dg.DagsterInstance) -> set[str]:
    """Assets whose blocking check did not pass when it was last asked, failed or broke off: what stopped a run stops
    the next one as well."""
    graph = defs.resolve_asset_graph()
    keys = [key for key in graph.asset_check_keys if graph.get(key).blocking]
    last = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    passed = AssetCheckExecutionRecordStatus.SUCCEEDED
    return {key.asset_key.to_user_string() for key, record in last.items() if record.status != passed}


def changed_additions(project: Project, instance: dg.DagsterInstance) -> set[str]:
    """Added data that is not what Dagster recorded: another commit was checked out, or a shard added by hand."""
    from ml.sources import added
    from orchestration.assets.added import ASSET

    changed = set()
    for modality, name in ASSET.items():
        event = instance.get_latest_materialization_event(dg.AssetKey(name))
        recorded = event and event.asset_materialization and event.asset_materialization.tags
        now = added.version(project.paths, modality) or added.NOTHING
        if recorded and recorded.get("dagster/data_version") != now:
            changed.add(name)
    return changed


def show_results(root: Path) -> None:
    """The short table: what was measured, with intervals where there are any."""
    report = json.loads((root / "reports" / "evaluation.json").read_text())
    print(f"\nResults · source {report['source']} · budget {report['budget']} · seed {report['seed']}\n")
    for name, value in _rows(report):
        print(f"  {name:<42} {value}")


def _rows(report: dict) -> list[tuple[str, str]]:
    speech, found = report["speech"], report["extraction"]
    rows = [("pictures recognised", _share(report["image"]))]
    for kind in SPEECH_KINDS:
        chosen = "  ← chosen" if kind == speech["chosen"] else ""
        rows.append((f"words recognised, {kind}", _share(speech[kind]) + chosen))
    unseen = speech[speech["chosen"]]["unseen_speaker_accuracy"] or {}
    for speaker, accuracy in list(unseen.items())[:2]:
        rows.append((f"  by {speaker}, never heard", _percent(accuracy)))
    for overlap in ("full_overlap", "partial_overlap", "no_overlap"):
        figures = found["si_sdr_improvement_db"][overlap]
        if figures:
            rows.append((f"separation, {overlap.replace('_', ' ')}", f"{figures['mean']:+.1f} dB SI-SDR improvement"))
    rows += [
        ("words recognised in the separated sound", _percent(found["word_accuracy"])),
        ("  and said to be present", _percent(found["word_accuracy_answered"])),
        ("  in the mixture, unprocessed", _percent(found["word_accuracy_unprocessed"])),
        ("presence AUC", _figure(found["presence_auc"], ".3f")),
        ("median boundary error", _figure(found["boundary_error_ms_median"], ".0f", " ms")),
    ]
    return rows


def _share(figures: dict) -> str:
    low, high = figures["ci95"]
    return f"{_percent(figures['accuracy'])}  (95 % interval {100 * low:.1f} to {100 * high:.1f}, n = {figures['n']})"


def _percent(share: float | None) -> str:
    return _figure(None if share is None else 100 * share, ".2f", " %")


def _figure(value: float | None, form: str, unit: str = "") -> str:
    return "not measured" if value is None else f"{value:{form}}{unit}"


def ask_service(root: Path) -> None:
    """Start the Bento on a free port, ask it one picture and one recording, print its answer, and stop it.

    It is told of no log: what it answers here nobody asked for, and of what others keep it is to delete nothing.
    """
    from ml.predictor import read_goldens
    from serving import client, packaging

    paths = Project(root=str(root)).paths
    tag = packaging.read_champion(paths).tag
    golden = read_goldens(packaging.stored_bundle(tag, paths))[0]
    with client.serve(packaging.bento_of(tag, paths), paths, env={"SEEHEAR_ROOT": "", "SEEHEAR_LOG": ""}) as url:
        answer = client.ask(url, golden.picture, golden.recording)
    print("\nThe packaged service was shown a picture and a recording, and answered:\n")
    print(json.dumps(_shortened(answer["extract"]), indent=2, ensure_ascii=False))
    print(NEXT)


def _shortened(answer: object) -> object:
    """The answer for reading: numbers rounded, the sound cut."""
    if isinstance(answer, dict):
        return {key: _shortened(value) for key, value in answer.items()}
    if isinstance(answer, list):
        return [_shortened(value) for value in answer]
    if isinstance(answer, float):
        return round(answer, 4)
    return f"{answer[:24]}… ({len(answer)} characters)" if isinstance(answer, str) and len(answer) > 80 else answer


NEXT = """
Look next:
  make ui        the lineage in Dagster          http://127.0.0.1:3000
  make serve     the service and its page        http://127.0.0.1:3001/app
  make reports   evaluation and drift reports    http://127.0.0.1:8000
  reports/examples/index.html                    extracted sounds beside their mixtures
  reports/data_docs/index.html                   what was checked in the data"""

if __name__ == "__main__":
    sys.exit(main())
