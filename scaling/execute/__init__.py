"""The one seam to a machine: planned runs go in, published run files come out. Everything here
starts without jax.
"""
