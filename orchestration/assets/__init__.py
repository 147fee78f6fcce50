"""Every asset of the lineage, in the order of its flow."""

from orchestration.assets import added, data, evaluation, models, monitoring, renewal, serving

FLOW = (added, data, models, evaluation, serving, monitoring, renewal)
ASSETS = [asset for step in FLOW for asset in step.ASSETS]
