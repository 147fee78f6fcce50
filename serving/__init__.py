"""The service, the page and the command line."""

import os

os.environ["BENTOML_DO_NOT_TRACK"] = "True"  # read by BentoML at its first event, so it has to stand before any import
