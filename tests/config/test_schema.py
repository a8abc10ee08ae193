"""The JSON Schema of sweep files: valid itself, true of every sweep file here, and not of the
mistakes that editors can show.
"""

import json
import tomllib
from pathlib import Path

import pytest

from scaling.config import Sweep
from scaling.config.sweep_file import schema
from scaling.units import Quantity, positive

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "sweeps").glob("*.toml"))


@pytest.fixture(scope="module")
def checked():
    jsonschema = pytest.importorskip("jsonschema")  # it comes with Ray
    jsonschema.Draft202012Validator.check_schema(schema())
    return jsonschema.Draft202012Validator(schema())


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_shipped_sweep_matches_the_schema(checked, path):
    assert [
        error.message
        for error in checked.iter_errors(tomllib.loads(path.read_text(encoding="utf-8")))
    ] == []


WRONG = {
    'sizes = ["3.7k"': 'sizes = ["3.7kk"',
    '"6.6k"': '"6.6P"',
    'kind = "isoflop"': 'kind = "isoflops"',
    "n_layers = 2": "n_layer = 2",
    "points = 8": "points = 0",
    "batch_size = 8": 'batch_size = "8"',
    "seq_len = 64": "seq_len = 1",
    'name = "demo"': 'name = "../demo"',
    "[evals]": "[eval]",
}


@pytest.mark.parametrize(("right", "wrong"), WRONG.items())
def test_schema_rejects_what_loading_rejects(checked, right, wrong):
    text = (ROOT / "sweeps" / "demo.toml").read_text(encoding="utf-8")
    assert right in text
    assert not checked.is_valid(tomllib.loads(text.replace(right, wrong)))


@pytest.mark.parametrize(("budget", "is_count"), [("0.01P", True), ("1e-5E", True), ("1X", False)])
def test_a_budget_may_be_written_in_peta_and_exa_flops(checked, budget, is_count):
    document = tomllib.loads((ROOT / "sweeps" / "demo.toml").read_text(encoding="utf-8"))
    document["design"]["budgets"] = [budget]
    assert checked.is_valid(document) == is_count


COUNTS = {"Count": Quantity.FLOPS, "Params": Quantity.PARAMS, "Tokens": Quantity.TOKENS}
NUMBERS = ["1", " +1.5e3", ".5", "1_000", "0", "-1", "1 2", "e9", "~1", "1."]
UNITS = (
    "banana|e|p|P|E|k|K|Mtok|M tok|tokens|billion|BILLION|bn|B params|parameters|FLOPs|PFLOPs|"
    "TFLOP|PF-days|petaflop/s-days|GFLOP/s hours|F/s-days|days|in M|nats|bits|%|sequences of 2048|"
    "seqs of 12 tokens|sequences|x 10^9|*10**6|×10^3|10^9|x 1e6|1000|M M|kk|weights|zetta|of|"
    "thousand weights"
)


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_in_the_schema_is_one_that_is_read(checked, name):
    counts = checked.evolve(schema={"$ref": f"#/$defs/{name}", "$defs": checked.schema["$defs"]})
    texts = [*NUMBERS, *(f"3{gap}{unit}" for unit in UNITS.split("|") for gap in ("", " "))]
    read = {}
    for text in texts:
        try:
            read[text] = positive(text, COUNTS[name]) > 0
        except ValueError:
            read[text] = False
    assert {text: counts.is_valid(text) for text in texts} == read
    assert 20 < sum(read.values()) < len(texts) - 20


def test_every_sweep_key_is_in_the_schema():
    found = schema()
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(found["properties"]) == set(Sweep.model_fields)
    assert set(found["required"]) == {"name", "design", "base"}
    assert found["additionalProperties"] is False
    tables = [entry for name, entry in found["$defs"].items() if name not in COUNTS]
    assert all(entry["additionalProperties"] is False for entry in tables)
    assert {"norm", "n_heads", "pos"} <= set(found["$defs"]["ModelOverrides"]["properties"])


def test_schema_in_docs_is_current():
    assert (
        json.loads((ROOT / "docs" / "sweep.schema.json").read_text(encoding="utf-8")) == schema()
    ), "renew with: python docs/reference.py"


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_file_names_its_schema_for_editors(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == "#:schema ../docs/sweep.schema.json"
    assert (path.parent / first.removeprefix("#:schema ")).is_file()
