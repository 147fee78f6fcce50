"""Data added, removed or relabelled later: each time one more shard under DVC, and nothing that is stored rewritten."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
from pydantic import Field

from ml.config import MODALITIES, UserError
from ml.sources import added
from orchestration import previews
from orchestration.assets.common import plainly, provenance
from orchestration.resources import Project

ASSET = {modality: f"added_{modality}" for modality in MODALITIES}


class Amendment(dg.Config):
    """What to do with the stored data. Without anything set, the present state is recorded."""

    folder: str | None = Field(
        None, description="Folder or archive to add: images/<label>/* and audio/<label>/*, either may be absent."
    )
    modality: str = Field("images", description="images or audio: what `remove` and `relabel` are about.")
    remove: list[str] = Field([], description="Ids of items to take out.")
    relabel: dict[str, str] = Field({}, description="New labels of items, by id.")


@dg.multi_asset(
    name="added",
    specs=[
        dg.AssetSpec(
            name,
            group_name="raw",
            kinds={"dvc", "parquet"},
            owners=["team:data"],
            description=f"The source's {modality} added later, removed or relabelled: small shards under DVC.",
            code_version="1",
        )
        for modality, name in ASSET.items()
    ],
    can_subset=True,
)
def added_data(
    context: dg.AssetExecutionContext, config: Amendment, project: Project
) -> Iterator[dg.MaterializeResult]:
    done = _amended(project, config)
    for modality, name in ASSET.items():
        if dg.AssetKey(name) in context.selected_asset_keys:
            version = added.version(project.paths, modality) or added.NOTHING
            yield dg.MaterializeResult(
                asset_key=name,
                data_version=dg.DataVersion(version),
                metadata=provenance(project) | {"dvc_hash": version} | _metadata(project, modality, done.get(modality)),
            )


@plainly
def _amended(project: Project, config: Amendment) -> dict[str, added.Addition]:
    """Write and track the shards that the configuration asks for; one that was left counts as this one's."""
    done: dict[str, added.Addition] = {}

    def write() -> list[Path]:
        done.update({addition.modality: addition for addition in _written(project, config)})
        return [addition.file for addition in done.values() if addition.file]

    for left in project.dvc.add(write):
        modality = left.parent.name
        if modality in done and not done[modality].file:
            done[modality] = replace(done[modality], file=left)
    return done


def _written(project: Project, config: Amendment) -> list[added.Addition]:
    if config.modality not in MODALITIES:
        raise UserError(f"{config.modality}: expected {' or '.join(MODALITIES)}")
    asked = [name for name in ("folder", "remove", "relabel") if getattr(config, name)]
    if len(asked) > 1:
        raise UserError(f"run config: {', '.join(asked)}: expected one of them at a time")
    paths = project.paths
    if config.folder:
        return added.add_folder(paths, Path(config.folder), project.settings.data.group_pattern)
    if config.remove:
        return [added.remove(paths, config.modality, config.remove)]
    return [added.relabel(paths, config.modality, config.relabel)] if config.relabel else []


def _metadata(project: Project, modality: str, addition: added.Addition | None) -> dict:
    history = added.history(project.paths, modality)
    shown = {"shards": len(history), "history": previews.table(history)} if history else {"shards": 0}
    if addition is None:
        return shown
    stored_already = {"stored_already": addition.known}
    if addition.file is None:
        return shown | stored_already
    shown |= {key: history[-1][key] for key in ("added", "changed", "removed")} | {"labels": addition.labels}
    shown |= {"file": str(addition.file.relative_to(project.root)), "bytes": addition.file.stat().st_size}
    why_not = project.dvc.push([addition.file])
    return shown | stored_already | {"sent": why_not is None, "pushed": why_not or "to DVC's default remote"}


ASSETS = [added_data]
