"""Tuned hyper-parameters: grids of complete runs before a sweep, their optima with standard errors,
and a rule over model size.

An exponent moves from 0.84 to 0.50 by tuning alone (Porian 2024). The package decides which values
to train and what they mean; the caller trains them.
"""
