"""Kaplan's power laws of one variable, and the critical batch size (Kaplan 2020)."""
