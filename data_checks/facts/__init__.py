"""One row of measured facts per picture and per recording: `python -m data_checks.facts SOURCE MODALITY`.

What is measured is rounded to fixed digits and summed exactly or in double precision, so two machines write the same
bytes. `picture_facts` and `recording_facts` measure what is already decoded; the prediction log uses them too.
"""

from __future__ import annotations

from data_checks.facts.items import measure_picture, measure_recording
from data_checks.facts.pictures import picture_facts, stacked_picture_facts
from data_checks.facts.recordings import SILENT_DB, recording_facts
from data_checks.facts.shards import facts_schema, measure_shards

__all__ = [
    "SILENT_DB",
    "facts_schema",
    "measure_picture",
    "measure_recording",
    "measure_shards",
    "picture_facts",
    "recording_facts",
    "stacked_picture_facts",
]
