"""Variants of one model, compared seed by seed: attention, positions, norms."""
