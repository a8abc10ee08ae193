"""The reports that the browser opens, each written without training: only the page, whose figures
and tables the browser reads.
"""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from scaling.fit.fit_options import FitOptions
from scaling.report.inputs import load_inputs
from scaling.report.page import html
from scaling.report.sections import build_report
from scaling.store.rows import SCHEMA
from scaling.store.run_files import write_run
from tests.documents import dump, fit

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
HOSTILE = (
    '</script><script>window.ran=1</script><img src=x onerror="window.ran=2"><a '
    'href="javascript:window.ran=3">{{ 7*7 }}</a>'
)
HOSTILE_NAME = "<img src=x onerror=window.ran=4>"  # a folder's name may hold anything but a slash


def write(source, folder):
    """The page of `scaling report SOURCE`, without figures and tables."""
    report = build_report(
        load_inputs([source], folder / "fit.json"), None, f"scaling report {source}"
    )
    (folder / "index.html").write_text(html(report), encoding="utf-8")


def reference(folder):
    write(REFERENCE, folder)


def hostile(folder):
    """The reference sweep with markup in every field that a stranger can write."""
    results = folder / HOSTILE_NAME
    shutil.copytree(REFERENCE / "runs", results / "runs")
    asked = [
        line
        for line in (REFERENCE / "sweep.toml").read_text().splitlines()
        if not line.startswith("question")
    ]
    (results / "sweep.toml").write_text("\n".join([f"question = {json.dumps(HOSTILE)}", *asked]))
    (results / "failures").mkdir()
    (results / "failures" / "0123456789ab.txt").write_text(
        f"ValueError: {HOSTILE}\n\nTraceback (most recent call last):\n"
    )
    document = json.loads((REFERENCE / "fits" / "chinchilla.json").read_text())
    document["warnings"].append({"code": "other", "message": HOSTILE})
    document["excluded"].append({"reason": HOSTILE, "count": 3})
    document["source"] |= {"paths": [HOSTILE], "columns": {"N": HOSTILE}}
    dump(document, results / "fits" / "chinchilla.json")
    dump(document, results / "fits" / (HOSTILE_NAME + ".json"))
    write(results, folder)


def table(folder):
    """A fit of a user's table: Hoffmann's law with noise, a column and the document named with
    markup.
    """
    noise = np.random.default_rng(0)
    runs = [(n, d) for n in np.geomspace(1e7, 1e10, 5) for d in np.geomspace(2e8, 2e11, 5)]
    with (folder / "runs.csv").open("w", newline="") as handle:
        lines = csv.writer(handle)
        lines.writerow(["params", "tokens", "loss", "<b>bold</b>"])
        for n, d in runs:
            lines.writerow(
                [n, d, (1.69 + 406 / n**0.34 + 411 / d**0.28) * np.exp(noise.normal(0, 0.004)), 1]
            )
    dump(fit([folder / "runs.csv"], FitOptions(bootstrap=40)), folder / f"{HOSTILE_NAME}.json")
    write(folder / f"{HOSTILE_NAME}.json", folder)


def laboratory(folder):
    """Rows of two phenomena: grokking with its laws, and emergence by metric."""
    grokking = pytest.importorskip("tests.studies.test_grokking")
    emergence = pytest.importorskip("tests.studies.test_emergence")
    results = folder / "laboratory"
    rows = pd.concat(
        [grokking.table("grokking-laws"), emergence.ladder(emergence.smooth, lambda width: 2)],
        ignore_index=True,
    )
    for _, run in rows.groupby("run_id"):
        write_run(results, pa.Table.from_pandas(run, SCHEMA, preserve_index=False))
    write(results, folder)


def lawless(folder):
    """Two runs, no law, and a run that failed."""
    results = folder / "lawless"
    (results / "runs").mkdir(parents=True)
    for path in sorted((REFERENCE / "runs").iterdir())[:2]:
        shutil.copy(path, results / "runs")
    (results / "failures").mkdir()
    (results / "failures" / "0123456789ab.txt").write_text(
        "out of memory: MemoryError: 12 GiB\n\nTraceback\n"
    )
    write(results, folder)


WRITERS = {
    function.__name__: function for function in (reference, table, laboratory, hostile, lawless)
}
