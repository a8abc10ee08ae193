"""The laboratory: what happens around the law, read off the rows. Numbers only; the report draws them. No jax in this room.

A module studies one phenomenon: it takes the rows of a results folder and returns what it found with its findings.
"""
