"""What the retraining policy decided, as an asset that its sensor writes: nothing here is run."""

import dagster as dg

DECISIONS = dg.AssetKey("retraining_decisions")

retraining_decisions = dg.AssetSpec(
    DECISIONS,
    deps=["drift_report", "champion"],
    group_name="monitoring",
    kinds={"dagster"},
    owners=["team:ml"],
    description="Every decision on whether to retrain, also those not to, with its reason; written by the sensor "
    "retraining_policy and the schedule weekly_retraining, kept in var/retraining/.",
    code_version="1",
)

ASSETS = [retraining_decisions]
