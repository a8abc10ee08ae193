"""Test-time sampling: coverage against samples, and training against sampling (Brown 2024)."""
