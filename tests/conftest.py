"""What every test may rely on: no telemetry, and no settings from the shell that runs it."""

import os

os.environ.update(
    BENTOML_DO_NOT_TRACK="True",
    DO_NOT_TRACK="1",
    GX_ANALYTICS_ENABLED="false",
    DAGSTER_DISABLE_TELEMETRY="yes",
    DVC_NO_ANALYTICS="1",
)
for _name in ("SOURCE", "MIRROR", "FOLDER", "BUDGET", "SEED", "DEVICE", "ROOT", "MODEL", "LOG"):
    os.environ.pop(f"SEEHEAR_{_name}", None)
for _name in ("DAGSTER_HOME", "BENTOML_HOME"):
    os.environ.pop(_name, None)
