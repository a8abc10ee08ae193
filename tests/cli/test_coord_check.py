"""The command coord-check: one JSON document with a verdict for each parametrisation, and errors
that say what to do.
"""

import json

import pytest

from scaling.config.sweep_file import dump_sweep
from tests.command_line import scaling
from tests.sweep_files import tiny


@pytest.fixture
def sweep(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(dump_sweep(tiny(recipe={"n_layers": 1, "size_tolerance": 1.0})))
    return path


@pytest.mark.exhaustive
def test_coord_check_document_names_arrays_that_are_not_flat(sweep):
    done = scaling("coord-check", sweep, "--widths", "16,32,64", "--steps", 3, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["lr"] == 0.16 / 16
    standard, transfer = document["checks"]
    assert [check["parametrisation"] for check in document["checks"]] == ["standard", "transfer"]
    assert standard["at"] == transfer["at"] == [16, 32, 64]
    assert len(transfer["curves"]) == 10
    assert "change of residual" in standard["not_flat"]
    assert [curve["sizes"][0] for curve in standard["curves"]] == [
        curve["sizes"][0] for curve in transfer["curves"]
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--widths", "32"),
            "error: --widths: a slope needs two different numbers\n  write them as 32,64,128\n",
        ),
        (
            ("--depths", "2,-4"),
            "error: --depths: '-4' is not a whole number from 1 to 256\n  write them as 2,4,8\n",
        ),
        (
            ("--widths", "31,32"),
            'error: --widths: d_model = 31: pos = "rope" rotates pairs: d_head = 31 must be even\n'
            "  choose multiples of recipe.width_multiple = 8\n",
        ),
    ],
)
def test_coord_check_rejects_bad_options(sweep, options, message):
    done = scaling("coord-check", sweep, *options)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)
