"""Kills at every point and at random moments, and what became of the sweep: python -m
benchmarks.chaos --help.
"""
