"""What is recorded about the code and the libraries that made a result."""

import importlib.metadata

from scaling.store import provenance


def test_code_digest_covers_every_decisive_file() -> None:
    files = {path for name in provenance.DECISIVE for path in provenance.PACKAGE.glob(name)}
    assert all(any(provenance.PACKAGE.glob(name)) for name in provenance.DECISIVE)
    assert set((provenance.PACKAGE / "train").rglob("*.py")) <= files
    assert len(provenance.code_digest()) == 12


def test_versions_are_those_installed() -> None:
    assert provenance.versions()["jax"] == importlib.metadata.version("jax")
