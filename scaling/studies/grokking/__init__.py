"""Grokking: models that fit their training equations long before they generalize (Power 2022)."""
