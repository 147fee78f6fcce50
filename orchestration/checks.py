"""Asset checks: they show what Great Expectations and the evaluation found, and block what must not go on."""

import json
from collections.abc import Iterator

import dagster as dg

from data_checks.expectations import SUITES, Expectation, Result, Verdict, read_verdict, validate_pairs
from ml.config import MODALITIES, UserError
from orchestration.assets.data import DATASETS
from orchestration.assets.evaluation import STORED
from orchestration.champion import usable_pointer
from orchestration.resources import Project


def _suite_checks(asset: str, suite: str, modality: str, folder_of) -> dg.AssetChecksDefinition:
    """One check per expectation of the suite, read from the verdict that the DVC stage wrote."""
    expectations = {expectation.name: expectation for expectation in SUITES[suite]}

    @dg.multi_asset_check(
        name=f"{suite}_expectations",
        specs=[
            dg.AssetCheckSpec(
                name, asset=asset, blocking=expectation.severity == "error", description=expectation.reason
            )
            for name, expectation in expectations.items()
        ],
    )
    def checks(project: Project):
        yield from _results(read_verdict(folder_of(project.paths, modality)), asset)

    return checks


def _results(verdict: Verdict, asset: str) -> Iterator[dg.AssetCheckResult]:
    for result in verdict.results:
        yield dg.AssetCheckResult(
            check_name=result.name,
            asset_key=asset,
            passed=result.success,
            severity=_severity(result),
            description=result.reason,
            metadata={
                "observed": _shown(result.observed),
                "unexpected": result.unexpected_count,
                "raw_digest": verdict.raw_digest,
            },
        )


@dg.multi_asset_check(
    name="pairs_expectations",
    specs=[
        dg.AssetCheckSpec(
            expectation.name,
            asset="speech_dataset",
            additional_deps=["image_dataset"],
            blocking=expectation.severity == "error",
            description=expectation.reason,
        )
        for expectation in SUITES["pairs"]
    ],
)
def labels_of_both(project: Project):
    if (project.paths.prepared("images") / "meta.json").is_file():
        yield from _results(validate_pairs(project.paths), "speech_dataset")
        return
    for expectation in SUITES["pairs"]:
        yield dg.AssetCheckResult(
            check_name=expectation.name,
            asset_key="speech_dataset",
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description="not judged: there is no image_dataset yet; materialize it and run this check again",
        )


def _shown(observed: object) -> dg.MetadataValue:
    if isinstance(observed, dict | list):
        return dg.MetadataValue.json(observed)
    return dg.MetadataValue.text(str(observed))


def _severity(judged: Expectation | Result) -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.ERROR if judged.severity == "error" else dg.AssetCheckSeverity.WARN


def _raw_checks(modality: str) -> dg.AssetChecksDefinition:
    return _suite_checks(f"raw_{modality}", modality, modality, lambda paths, name: paths.validated(name))


def _prepared_checks(modality: str) -> dg.AssetChecksDefinition:
    return _suite_checks(DATASETS[modality], f"prepared_{modality}", modality, lambda paths, name: paths.prepared(name))


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            "images_beat_the_majority_class",
            asset="evaluation_report",
            description="The image classifier's gate accuracy lies above the share of the commonest class.",
        ),
        dg.AssetCheckSpec(
            "speech_beats_the_majority_class",
            asset="evaluation_report",
            description="The chosen speech classifier's gate accuracy lies above the share of the commonest class.",
        ),
    ]
)
def learnt_something(project: Project):
    gate = json.loads((project.paths.reports / "evaluation.json").read_text())["gate"]
    for check, figure in (
        ("images_beat_the_majority_class", "image_accuracy"),
        ("speech_beats_the_majority_class", "speech_accuracy"),
    ):
        share = gate["majority_share"][figure]
        yield dg.AssetCheckResult(
            check_name=check,
            asset_key="evaluation_report",
            passed=gate[figure] > share,
            metadata={"accuracy": gate[figure], "majority_share": share},
        )


@dg.asset_check(
    asset="champion",
    blocking=True,
    description="The champion's files match their digests, and it gives its golden requests the recorded answers.",
)
def champion_answers(project: Project) -> dg.AssetCheckResult:
    from ml.predictor import Predictor
    from serving import packaging

    paths = project.paths
    predictor = Predictor.load(packaging.stored_bundle(packaging.read_champion(paths).tag, paths))
    predictor.check_golden()
    return dg.AssetCheckResult(passed=True, metadata={"digest": predictor.digest})


@dg.asset_check(
    name=STORED,
    asset="champion",
    description="models/champion.json names a model whose files are there; watched by the sensor champion_watch.",
)
def champion_stored(project: Project) -> dg.AssetCheckResult:
    try:
        return dg.AssetCheckResult(passed=True, metadata={"digest": usable_pointer(project.paths)["digest"]})
    except UserError as fault:
        return dg.AssetCheckResult(passed=False, description=str(fault))


CHECKS = [
    *map(_raw_checks, MODALITIES),
    *map(_prepared_checks, MODALITIES),
    labels_of_both,
    learnt_something,
    champion_answers,
    champion_stored,
]
