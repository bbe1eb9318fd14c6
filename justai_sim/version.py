"""The version of the package, and of the numbers that it simulates."""

__version__ = "0.1.0"

NUMBERS = 4
"""Raised whenever the same scenario and seed give other numbers: unfinished sweeps then start anew."""
