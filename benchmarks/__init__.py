"""Our speed and figures beside those of others, each measured by one command."""

import platform

import torch


def machine() -> str:
    """Where a figure was measured, as it stands beside it."""
    return f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
