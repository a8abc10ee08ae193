"""A table of a million runs: seconds and peak memory of `scaling fit`, in a process of its own:
`python benchmarks/large.py`.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 1_000_000


def main() -> None:
    """Write the table, fit it with 1,000 refits, print seconds and GiB."""
    random = np.random.default_rng(0)
    n = np.geomspace(1e7, 1e10, 50)[random.integers(0, 50, ROWS)]
    d = n * np.exp(random.uniform(0, 5, ROWS))
    loss = (1.8 + 480 * n**-0.35 + 2000 * d**-0.37) * np.exp(0.01 * random.standard_normal(ROWS))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.parquet"
        pq.write_table(pa.table({"N": n, "D": d, "loss": loss}), path)
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "scaling", "fit", str(path)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"{ROWS:,} runs: {time.perf_counter() - begun:.1f} s, {peak:.2f} GiB")


if __name__ == "__main__":
    main()
