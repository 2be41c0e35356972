"""Becomes the engine's server, after starting a child in a session of its own, as an engine's worker may be."""

from __future__ import annotations

import os
import subprocess
import sys

if __name__ == "__main__":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    os.execv(sys.executable, [sys.executable, "-m", "api.command", *sys.argv[1:]])
