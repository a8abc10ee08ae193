"""What is recorded about the code and the libraries that made a result."""

import importlib.metadata

from scaling.store import provenance


def test_code_digest_covers_every_decisive_file() -> None:
    assert all((provenance.PACKAGE / name).exists() for name in provenance.DECISIVE)
    assert any((provenance.PACKAGE / "train").rglob("*.py"))
    assert len(provenance.code_digest()) == 12


def test_versions_are_those_installed() -> None:
    assert provenance.versions()["jax"] == importlib.metadata.version("jax")
