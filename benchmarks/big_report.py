"""The report of a sweep of 100,000 runs: seconds and memory to fit and to write it, bytes of its
page, and how long a browser takes.

python -m benchmarks.big_report [--runs 100000] [--keep DIR]; the rows are made by hand, on
Hoffmann's law with the noise of a seed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.scale import timed
from scaling import accounting, files
from scaling.config import ModelConfig, OptimConfig, RunConfig, SyntheticTask
from scaling.fit.laws.published import published
from scaling.store import run_files
from scaling.store.compaction import RUNS_PER_FILE, RUNS_PER_GROUP
from scaling.store.rows import SCHEMA, SCHEMA_VERSION, Measurement, Provenance, rows

BUDGETS = np.geomspace(1e16, 1e19, 20)
WIDTHS = range(192, 1152, 48)
SEQ_LEN, VOCABULARY, STEPS, NOISE = 512, 32_000, 400, 0.004
EVALUATIONS = (20, 60, 160, 400)


def cells() -> list[RunConfig]:
    """One run a budget and width, of `STEPS` steps each, with the batch that spends the budget."""
    found = []
    for width in WIDTHS:
        heads = width // 48
        model = ModelConfig(
            n_layers=8,
            d_model=width,
            n_heads=heads,
            n_kv_heads=heads,
            d_head=48,
            d_ff=4 * width,
            vocab_size=VOCABULARY,
        )
        task = SyntheticTask(kind="synthetic", seq_len=SEQ_LEN)
        for budget in BUDGETS:
            batch = max(1, round(budget / accounting.train_flops(model, SEQ_LEN, SEQ_LEN * STEPS)))
            found.append(
                RunConfig(
                    model=model,
                    task=task,
                    optim=OptimConfig(lr=1e-3),
                    batch_size=batch,
                    n_steps=STEPS,
                )
            )
    return found


def seeds_of(run: RunConfig, count: int, noise: np.random.Generator) -> pa.Table:
    """The rows of `count` seeds of a cell: the law's loss, higher before the end, and a seed's own
    noise.
    """
    law = dict(published("hoffmann2022").values)
    n = accounting.n_params(run.model, SEQ_LEN)
    d = run.batch_tokens * np.array(EVALUATIONS)
    level = (
        law["E"]
        + law["A"] / n ** law["alpha"]
        + law["B"] / d ** law["beta"]
        + 0.1 * (1 - np.array(EVALUATIONS) / STEPS)
    )
    one = rows(
        "big",
        run,
        [Measurement(step, "val", "loss", 1.0, 0.004) for step in EVALUATIONS],
        Provenance("cpu x2", "0" * 40, "0.1.0"),
    )
    copies = [run.model_copy(update={"seed": seed}) for seed in range(count)]
    changed = {
        "run_id": [copy.run_id for copy in copies],
        "seed": list(range(count)),
        "config": [copy.model_dump_json() for copy in copies],
    }
    table = pa.concat_tables([one.replace_schema_metadata(None)] * count)
    losses = np.minimum(level, 10.2) * np.exp(
        noise.normal(0, NOISE, (count, 1)) + noise.normal(0, NOISE / 4, (count, len(level)))
    )
    for name, values in changed.items():
        column = pa.array([value for value in values for _ in EVALUATIONS], SCHEMA.field(name).type)
        table = table.set_column(SCHEMA.names.index(name), SCHEMA.field(name), column)
    return table.set_column(
        SCHEMA.names.index("value"), SCHEMA.field("value"), pa.array(losses.ravel())
    )


def batches(runs: int) -> Iterator[pa.Table]:
    """Tables of at most as many runs as a merged file holds."""
    noise, found, count = np.random.default_rng(0), [], 0
    each = max(1, runs // len(cells()))
    for run in cells():
        found.append(seeds_of(run, each, noise))
        count += each
        if count + each > RUNS_PER_FILE:
            yield pa.concat_tables(found)
            found, count = [], 0
    if found:
        yield pa.concat_tables(found)


def publish(folder: Path, table: pa.Table, number: int) -> None:
    """One merged file, as `scaling results compact` writes it."""
    schema = SCHEMA.with_metadata({"scaling.schema": str(SCHEMA_VERSION)})
    index = json.dumps({"runs": table["run_id"].unique().to_pylist()})
    size = RUNS_PER_GROUP * len(EVALUATIONS)
    groups = (table.slice(first, size) for first in range(0, table.num_rows, size))
    data = run_files.parquet_bytes(groups, schema, **{run_files.INDEX.decode(): index})
    target = folder / run_files.MERGED / f"{number:016x}.parquet"
    files.write_atomically(target, lambda path: path.write_bytes(data))


SCROLL = """() => new Promise((done) => {
  const gaps = [];
  let before = performance.now();
  const step = () => {
    const now = performance.now();
    gaps.push(now - before);
    before = now;
    scrollBy(0, 120);
    if (innerHeight + scrollY < document.body.scrollHeight - 1) requestAnimationFrame(step);
    else {
      gaps.sort((a, b) => a - b);
      done({middle: gaps[gaps.length >> 1] / 1000, longest: gaps.at(-1) / 1000});
    }
  };
  requestAnimationFrame(step);
})"""


def browse(page: Path) -> dict[str, float]:
    """Seconds until the first figure is drawn, and between frames while the page is scrolled to its
    end; empty without Chromium.
    """
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        return {}
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        tab = browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
        tab.set_default_timeout(300_000)
        begin = time.monotonic()
        tab.goto(page.resolve().as_uri())
        tab.wait_for_function("() => document.images[0].complete")
        drawn = time.monotonic() - begin
        gaps = tab.evaluate(SCROLL)
        browser.close()
    return {
        "open in Chromium, first figure drawn": drawn,
        "a frame while scrolling, median": gaps["middle"],
        "the longest": gaps["longest"],
    }


def main() -> None:
    """Parse, make, time, print a table."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--runs", type=int, default=100_000)
    asked.add_argument("--keep", type=Path)
    given = asked.parse_args()
    folder = (given.keep or Path(tempfile.mkdtemp(prefix="big-report-"))) / "big"
    if not run_files.has_runs(folder):
        for number, table in enumerate(batches(given.runs)):
            publish(folder, table, number)
    print("| step | seconds | peak GiB |\n|---|---|---|")
    for name, command in {
        "fit": ("fit", folder, "--out", folder / "fits" / "chinchilla.json", "--json"),
        "report": ("report", folder),
    }.items():
        seconds, _, peak, _ = timed(*command)
        print(f"| {name} | {seconds:.1f} | {peak:.2f} |", flush=True)
    page = folder / "report" / "index.html"
    for name, seconds in browse(page).items():
        print(f"| {name} | {seconds:.2f} | |", flush=True)
    document = json.loads((folder / "fits" / "chinchilla.json").read_text(encoding="utf-8"))
    parts = {
        "index.html": page,
        "report.md": page.with_name("report.md"),
        **{
            f"figures/*.{kind}": page.parent / "figures" / f"*.{kind}"
            for kind in ("svg", "pdf", "png")
        },
    }
    print(f"\n{document['n_points']:,} runs fitted")
    for name, pattern in parts.items():
        print(
            f"{name}: "
            f"{sum(path.stat().st_size for path in pattern.parent.glob(pattern.name)) / 1e6:.2f} "
            "MB"
        )


if __name__ == "__main__":
    main()
