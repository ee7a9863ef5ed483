"""Nothing is sent anywhere: switches off the usage statistics of the libraries that dermlab stands on."""

from __future__ import annotations

import os

SWITCHES = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_DISABLE_CODE": "true",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "LITDATA_DISABLE_VERSION_CHECK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def switch_off() -> None:
    """Set the libraries' own opt-out variables where the user has not set them."""
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
