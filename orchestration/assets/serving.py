"""The Bento: the champion, packaged with everything it needs to answer."""

import dagster as dg

from orchestration.assets.common import plainly, provenance
from orchestration.resources import Project, digest, files_digest
from serving import packaging


@dg.asset(
    deps=["champion"],
    group_name="serving",
    kinds={"bentoml"},
    owners=["team:operations"],
    description="The service with the champion inside, ready for `make serve`, `bentoml serve` or a container.",
    code_version=digest(files_digest(packaging.packed()), packaging.requirements()),
)
@plainly
def bento(project: Project) -> dg.MaterializeResult:
    champion = packaging.read_champion(project.paths)
    tag = packaging.build_bento(champion.tag, project.paths)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(champion.digest),
        metadata=provenance(project)
        | {
            "bento": str(tag),
            "model": champion.tag,
            "model_digest": champion.digest,
            "serve": dg.MetadataValue.md("`make serve`, then open `http://127.0.0.1:3001/app`"),
        },
    )


ASSETS = [bento]
