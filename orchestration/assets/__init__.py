"""Every asset of the lineage, in the order of its flow."""

from orchestration.assets import data, evaluation, models, monitoring, serving

ASSETS = [*data.ASSETS, *models.ASSETS, *evaluation.ASSETS, *serving.ASSETS, *monitoring.ASSETS]
