"""Helpers of the monitor's tests are imported by name, as their script for ranks imports them too."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("monitor_readings")
