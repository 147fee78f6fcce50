"""Raw and prepared data: DVC makes and versions them, Dagster shows them."""

import json
from collections import Counter
from dataclasses import asdict, replace

import dagster as dg

from ml.config import MODALITIES, Paths, Settings, project_root
from ml.sources.folder import state
from orchestration import previews
from orchestration.assets.added import ASSET
from orchestration.assets.common import SETTINGS, plainly, provenance
from orchestration.resources import Project, digest, source_digest

DATASETS = {"images": "image_dataset", "audio": "speech_dataset"}
SHOWN = 10
LISTED = 50  # items in a table of the UI


def raw_settings(settings: Settings) -> dict:
    """What raw data, facts and checks depend on, as the stages in dvc.yaml do; how they are split comes after."""
    named = ("source", "folder", "group_pattern", "shard_rows")
    return {name: getattr(settings.data, name) for name in named} | asdict(settings.checks)


def _raw_asset(modality: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"raw_{modality}",
        deps=[ASSET[modality]],
        group_name="raw",
        kinds={"dvc", "parquet", "greatexpectations"},
        owners=["team:data"],
        description=f"The source's {modality} and those added, untouched, as shards under DVC, measured and checked.",
        code_version=digest(
            source_digest("ml.sources", "data_checks.facts", "data_checks.comparisons", "data_checks.expectations"),
            raw_settings(SETTINGS),
            state(SETTINGS.data.folder, modality, project_root()) if SETTINGS.data.source == "folder" else None,
        ),
    )
    @plainly
    def raw(project: Project) -> dg.MaterializeResult:
        project.dvc.reproduce(f"raw@{modality}", f"facts@{modality}", f"validated@{modality}")
        version = project.dvc.version(f"raw@{modality}")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(version),
            metadata=provenance(project) | {"dvc_hash": version} | raw_metadata(project.paths, modality),
        )

    return raw


def _dataset_asset(modality: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=DATASETS[modality],
        deps=[f"raw_{modality}"],
        group_name="validated",
        kinds={"dvc", "numpy", "greatexpectations"},
        owners=["team:data"],
        description=f"The {modality} that passed the checks, decoded, split and packed for training.",
        code_version=digest(
            source_digest("ml.datasets", "ml.media", "data_checks.expectations"),
            asdict(replace(SETTINGS.data, mirror=None, folder=None)),
        ),
    )
    @plainly
    def dataset(project: Project) -> dg.MaterializeResult:
        project.dvc.reproduce(f"prepared@{modality}")
        version = project.dvc.version(f"prepared@{modality}")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(version),
            metadata=provenance(project) | {"dvc_hash": version} | dataset_metadata(project.paths, modality),
        )

    return dataset


def raw_metadata(paths: Paths, modality: str) -> dict:
    """Rows, bytes, class balance, a look at one item of every label, what was set aside and why, and the data card."""
    import pyarrow.parquet as pq

    from data_checks.card import write_card
    from data_checks.expectations.quarantine import how_to_release
    from ml.sources.shards import item_batches, stored_shards

    aside = pq.read_table(paths.validated(modality) / "quarantine.parquet").to_pylist()
    doubted = pq.read_table(paths.validated(modality) / "label_errors.parquet").to_pylist()
    shards = stored_shards(paths, modality)
    held = {row["id"] for row in aside}
    labels, groups, first = Counter(), set(), {}
    for _, batch in item_batches(paths, modality, ("id", "label", "group", "bytes")):
        names = batch["label"].to_pylist()
        labels.update(str(name) for name in names)
        groups.update(batch["group"].to_pylist())
        for place, (item, name) in enumerate(zip(batch["id"].to_pylist(), names, strict=True)):
            if name not in first and item not in held:
                first[name] = batch["bytes"][place].as_py()
    return {
        "dagster/row_count": labels.total(),
        "shards": len(shards),
        "megabytes": round(sum(shard.stat().st_size for shard in shards) / 1e6, 2),
        "groups": len(groups - {None}),
        "class_balance": previews.table([{"label": name, "items": count} for name, count in sorted(labels.items())]),
        "samples": _samples(modality, sorted(first.items())[:SHOWN]) if first else dg.MetadataValue.text("none"),
        "quarantined": len(aside),
        "quarantine": previews.quarantine(aside[:LISTED], how_to_release(paths.source, modality)),
        "labels_likely_wrong": previews.table(doubted[:LISTED]),
        "data_card": dg.MetadataValue.md(write_card(paths)),
    }


def _samples(modality: str, items: list[tuple[str, bytes]]) -> dg.MarkdownMetadataValue:
    from ml import media

    if modality == "images":
        return previews.picture_sheet([(name, media.decode_picture(content)) for name, content in items])
    decoded = [(name, *media.decode_recording(content)) for name, content in items]
    rate_hz = decoded[0][2] if decoded else 1
    shown = [(name, media.resample(waveform, own_hz, rate_hz)) for name, waveform, own_hz in decoded]
    return previews.spectrogram_sheet(shown, rate_hz)


def dataset_metadata(paths: Paths, modality: str) -> dict:
    """Items per split and class, the rule that split them, shapes or rate, and what was set aside."""
    import pyarrow.parquet as pq

    from data_checks.card import write_card

    write_card(paths)  # which counts the splits
    folder = paths.prepared(modality)
    meta = json.loads((folder / "meta.json").read_text())
    index = pq.read_table(folder / "index.parquet", columns=["label", "split"]).to_pydict()
    counts = Counter(zip(index["label"], index["split"], strict=True))
    splits = ("train", "validation", "gate", "test")
    balance = [
        {"label": name} | {split: counts[name, split] for split in splits} for name in sorted(set(index["label"]))
    ]
    quarantined = pq.read_metadata(paths.validated(modality) / "quarantine.parquet").num_rows
    shape = {key: meta[key] for key in ("side", "channels", "sample_rate_hz") if key in meta}
    return {
        "dagster/row_count": len(index["label"]),
        "quarantined": quarantined,
        "split_rule": meta["split_rule"],
        "split_about": meta["split_about"],
        "class_balance": previews.table(balance),
        "data_docs": dg.MetadataValue.path(str(paths.reports / "data_docs" / "index.html")),
    } | shape


ASSETS = [*map(_raw_asset, MODALITIES), *map(_dataset_asset, MODALITIES)]
