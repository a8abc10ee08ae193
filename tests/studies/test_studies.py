"""The template: every study is one short file, and nothing else needs it."""

from importlib import import_module
from pathlib import Path

import pytest

from scaling import studies
from scaling.studies.study import Study

FOLDER = Path(studies.__file__).parent


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_a_study_is_a_file_of_at_most_200_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("entry", studies.STUDIES)
def test_every_entry_is_a_study(entry):
    module, _, name = entry.partition(":")
    assert isinstance(getattr(import_module(f"scaling.studies.{module}"), name), Study)
