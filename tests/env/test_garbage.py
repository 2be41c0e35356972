from __future__ import annotations

import subprocess
import sys

import pytest

from env.garbage import COLLECT_EVERY


@pytest.mark.parametrize("command", [["schema"], ["engine", "serve", "--help"]])
def test_every_command_collects_seldom(command: list[str]) -> None:
    program = f"""
import gc
from typer.testing import CliRunner
from api.command import app
usual = gc.get_threshold()
CliRunner().invoke(app, {command!r}, catch_exceptions=False)
print(*usual, *gc.get_threshold())
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    first, second, third, *now = map(int, found.stdout.split())
    assert first < COLLECT_EVERY
    assert now == [COLLECT_EVERY, second, third]
