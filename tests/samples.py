"""Where the provider samples lie; the tests that read them are skipped on a machine without them."""

from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[2] / "shared" / "esp" / "samples"


def samples(provider: str) -> Path:
    """The folder of a provider's samples, or a skip that says what is missing."""
    folder = SAMPLES / provider
    if not folder.is_dir():
        pytest.skip(f"no samples of {provider} on this machine")
    return folder
