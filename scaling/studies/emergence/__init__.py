"""Emergence: which jump is of the metric, and which of the model (Schaeffer 2023)."""
