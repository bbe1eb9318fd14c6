"""Hypothesis profiles: `ci` draws the same examples each time; `HYPOTHESIS_PROFILE=wide` searches anew."""

import os

from hypothesis import HealthCheck, settings

slow_ok = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=100, suppress_health_check=slow_ok)
settings.register_profile("wide", deadline=None, max_examples=5_000, suppress_health_check=slow_ok)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
