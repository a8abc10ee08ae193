"""The command coord-check: one JSON document with a verdict for each parametrisation."""

import json

import pytest

from scaling.config.sweep_file import dump_sweep
from tests.command_line import scaling
from tests.sweep_files import tiny


@pytest.mark.exhaustive
def test_coord_check_document_names_arrays_that_are_not_flat(tmp_path):
    sweep = tmp_path / "tiny.toml"
    sweep.write_text(dump_sweep(tiny(recipe={"n_layers": 1, "size_tolerance": 1.0})))
    asked = ("coord-check", sweep, "--widths", "16,32,64", "--steps", 3, "--json")
    document = json.loads(scaling(*asked, code=0).stdout)
    assert document["lr"] == 0.16 / 16
    standard, transfer = document["checks"]
    assert [check["parametrisation"] for check in document["checks"]] == ["standard", "transfer"]
    assert standard["at"] == transfer["at"] == [16, 32, 64]
    assert len(transfer["curves"]) == 10
    assert "change of residual" in standard["not_flat"]
    assert [curve["sizes"][0] for curve in standard["curves"]] == [
        curve["sizes"][0] for curve in transfer["curves"]
    ]
