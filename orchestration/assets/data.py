"""Raw and prepared data: DVC makes and versions them, Dagster shows them."""

import json
from collections import Counter
from dataclasses import asdict, replace

import dagster as dg

from ml.config import MODALITIES, Paths
from orchestration import previews
from orchestration.assets.common import SETTINGS, plainly, provenance
from orchestration.resources import Project, digest, source_digest

DATASETS = {"images": "image_dataset", "audio": "speech_dataset"}
SHOWN = 10


def _raw_asset(modality: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"raw_{modality}",
        group_name="raw",
        kinds={"dvc", "parquet", "greatexpectations"},
        owners=["team:data"],
        description=f"The source's {modality}, untouched, as Parquet shards under DVC, measured and checked.",
        code_version=digest(
            source_digest("ml.sources", "data_checks.facts", "data_checks.expectations"),
            asdict(replace(SETTINGS.data, mirror=None)),
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
    """Rows, bytes, class balance, speakers or writers, and a look at one item of every label."""
    import pyarrow.parquet as pq

    shards = sorted(paths.raw(modality).glob("*.parquet"))
    labels, groups, first = Counter(), set(), {}
    for shard in shards:
        for batch in pq.ParquetFile(shard).iter_batches(columns=["label", "group", "bytes"]):
            names = batch["label"].to_pylist()
            labels.update(names)
            groups.update(batch["group"].to_pylist())
            for name in set(names) - set(first):
                first[name] = batch["bytes"][names.index(name)].as_py()
    return {
        "dagster/row_count": labels.total(),
        "shards": len(shards),
        "megabytes": round(sum(shard.stat().st_size for shard in shards) / 1e6, 2),
        "groups": len(groups - {None}),
        "class_balance": previews.table([{"label": name, "items": count} for name, count in sorted(labels.items())]),
        "samples": _samples(modality, sorted(first.items())[:SHOWN]),
    }


def _samples(modality: str, items: list[tuple[str, bytes]]) -> dg.MarkdownMetadataValue:
    from ml import media

    if modality == "images":
        return previews.picture_sheet([(name, media.decode_picture(content)) for name, content in items])
    decoded = [(name, *media.decode_recording(content)) for name, content in items]
    return previews.spectrogram_sheet([(name, waveform) for name, waveform, _ in decoded], decoded[0][2])


def dataset_metadata(paths: Paths, modality: str) -> dict:
    """Items per split and class, the rule that split them, shapes or rate, and what was set aside."""
    import pyarrow.parquet as pq

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
        "class_balance": previews.table(balance),
        "data_docs": dg.MetadataValue.path(str(paths.reports / "data_docs" / "index.html")),
    } | shape


ASSETS = [*map(_raw_asset, MODALITIES), *map(_dataset_asset, MODALITIES)]
