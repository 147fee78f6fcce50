"""Where data come from: every source writes the same Parquet shards (`python -m ml.sources SOURCE MODALITY`)."""
