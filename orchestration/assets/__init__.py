"""Every asset of the lineage, in the order of its flow."""

from orchestration.assets import added, data, evaluation, models, monitoring, serving

ASSETS = [*added.ASSETS, *data.ASSETS, *models.ASSETS, *evaluation.ASSETS, *serving.ASSETS, *monitoring.ASSETS]
