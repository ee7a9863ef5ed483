"""Nothing is sent anywhere, whichever door one comes in by."""

from __future__ import annotations

import os
import subprocess
import sys

from dermlab.core.telemetry import SWITCHES


def test_importing_dermlab_switches_off_what_libraries_send_and_leaves_the_user_s_own_choice() -> None:
    code = f"import os, dermlab; print([os.environ.get(name) for name in {list(SWITCHES)}])"
    environment = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    environment["DO_NOT_TRACK"] = "0"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(list({**SWITCHES, "DO_NOT_TRACK": "0"}.values()))
