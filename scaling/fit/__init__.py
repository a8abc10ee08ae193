"""Fitting: points -> law and frontiers with intervals. numpy and scipy only, no jax."""
