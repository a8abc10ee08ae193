"""Units of headers, cells and options: read by one parser, or rejected."""

import math

import numpy as np
import pytest

from scaling.errors import ScalingError
from scaling.units import (
    PF_DAY,
    QUANTITIES,
    Quantity,
    parse_cell,
    parse_quantity,
    read_header,
)


@pytest.mark.parametrize(
    ("name", "letter", "bare", "factor"),
    [
        ("params (M)", "N", "params", 1e6),
        ("params [1,000,000]", "N", "params", 1e6),
        ("num_params_b", "N", "num_params", 1e9),
        ("tokens_billions", "D", "tokens", 1e9),
        ("tokens (million tokens)", "D", "tokens", 1e6),
        ("tokens_B", "D", "tokens", 1e9),
        ("tokens (1e9)", "D", "tokens", 1e9),
        ("tokens (10^9)", "D", "tokens", 1e9),
        ("tokens (\u00d710\u2079)", "D", "tokens", 1e9),
        ("tokens / 1e9", "D", "tokens", 1e9),
        ("Tokens, billions", "D", "Tokens", 1e9),
        ("tokens (Gtok)", "D", "tokens", 1e9),
        ("tokens (T)", "D", "tokens", 1e12),
        ("compute (PF-days)", "C", "compute", PF_DAY),
        ("pf_days", "C", "flops", PF_DAY),
        ("compute (TFLOP/s-days)", "C", "compute", PF_DAY / 1e3),
        ("compute (GFLOPs)", "C", "compute", 1e9),
        ("compute (TFLOPs)", "C", "compute", 1e12),
        ("compute (PFLOPs)", "C", "compute", 1e15),
        ("FLOPs (P)", "C", "FLOPs", 1e15),
        ("C (1e21 FLOPs)", "C", "C", 1e21),
        ("GFLOPs", "C", "flops", 1e9),
        ("zettaFLOP", "C", "flops", 1e21),
        ("flops_1e18", "C", "flops", 1e18),
        ("loss (bits)", "L", "loss", math.log(2)),
        ("loss (bits per token)", "L", "loss", math.log(2)),
        ("loss (bits per byte)", "L", "loss", math.log(2)),
        ("val_bpb", "L", "val_loss", math.log(2)),
        ("loss [nats]", "L", "loss", 1.0),
        ("accuracy (%)", "Y", "accuracy", 0.01),
    ],
)
def test_unit_of_a_header(name, letter, bare, factor):
    header = read_header(name, letter)
    assert (header.name, header.unknown) == (bare, "")
    assert header.unit.factor == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "letter"),
    [
        ("Model Size", "N"),
        ("n_params", "N"),
        ("B", "N"),
        ("loss_B", "L"),
        ("tokens_trained", "D"),
        ("training FLOP", "C"),
        ("flops_budget", "C"),
        ("loss (smoothed)", "L"),
        ("N (non-embedding)", "N"),
    ],
)
def test_header_without_a_unit(name, letter):
    header = read_header(name, letter)
    assert header.unit is None
    assert not header.unknown


@pytest.mark.parametrize(
    ("name", "letter", "unknown"),
    [
        ("loss (B)", "L", "B"),
        ("loss (C4)", "L", "C4"),
        ("compute (TFLOP/s)", "C", "TFLOP/s"),
        ("compute [GPU-hours]", "C", "GPU-hours"),
        ("log10(params)", "N", "a logarithm"),
    ],
)
def test_unknown_unit_of_a_header(name, letter, unknown):
    assert read_header(name, letter).unknown == unknown


def test_perplexity_becomes_a_loss():
    unit = read_header("perplexity", "L").unit
    np.testing.assert_allclose(unit.to_plain(np.array([math.e, math.e**2])), [1.0, 2.0])


@pytest.mark.parametrize(
    ("text", "letter", "value"),
    [
        ("70B", "N", 7e10),
        ("350M params", "N", 3.5e8),
        ("1e21 FLOPs", "C", 1e21),
        ("1.3 PFLOPs", "C", 1.3e15),
        ("5E", "C", 5e18),
        ("0.5 PF-days", "C", PF_DAY / 2),
        ("2.1 bits", "L", 2.1 * math.log(2)),
        ("23%", "Y", 0.23),
        ("2T", "D", 2e12),
    ],
)
def test_unit_of_a_cell(text, letter, value):
    assert parse_cell(text, QUANTITIES[letter])[0] == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "letter"),
    [("70 bananas", "N"), ("1,5", "L"), ("", "N"), ("M", "N"), ("3M", "L"), ("2 bits", "D")],
)
def test_other_cells_are_rejected(text, letter):
    with pytest.raises(ValueError, match=r"number|not a unit"):
        parse_cell(text, QUANTITIES[letter])


def test_an_option_takes_units_too():
    assert parse_quantity("0.5 PF-days", Quantity.FLOPS, "--flops", "") == PF_DAY / 2
    assert parse_quantity(1e21, Quantity.FLOPS, "--flops", "") == 1e21
    for value in ("1e21 bits", "-1", "0", True):
        with pytest.raises(ScalingError):
            parse_quantity(value, Quantity.FLOPS, "--flops", "")
