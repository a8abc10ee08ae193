"""What people get wrong: files as they come, and command lines that `test_errors.py` shows with
their messages in errors.txt.
"""

import json
from pathlib import Path

from scaling.config.sweep_file import dump_sweep
from tests.documents import dump
from tests.sweep_files import tiny

CSV = "N,D,loss\n" + "\n".join(
    f"{n:g},{d:g},{1.7 + 400 / n**0.34 + 400 / d**0.28:.5f}"
    for n in (1e6, 3e6, 1e7, 3e7)
    for d in (2e7, 1e8, 5e8)
)


def sweep_files() -> dict[str, str]:
    """Sweep files, the first of them right, each other one with one mistake."""
    right = dump_sweep(tiny())

    def wrong(old: str, new: str) -> str:
        assert old in right
        return right.replace(old, new)

    return {
        "tiny.toml": right,
        "empty.toml": "",
        "digits.toml": f"seeds = [{'9' * 5000}]",
        "keys.toml": "\n".join(f"key{i} = 1" for i in range(20_000)),
        "syntax.toml": "name = \n",
        "key.toml": wrong("n_layers", "n_layer"),
        "number.toml": wrong("2000.0", '"2kk"'),
        "negative.toml": wrong("batch_size = 8", "batch_size = -8"),
        "kind.toml": wrong('kind = "grid"', 'kind = "gird"'),
        "name.toml": wrong('name = "tiny"', 'name = "../tiny"'),
        "several.toml": wrong("2000.0", '"2kk"').replace("batch_size = 8", "batch_size = 0"),
        "corpus.toml": dump_sweep(
            tiny(base={"task": {"kind": "text", "corpus": "no/such/folder"}})
        ),
        "bare.toml": 'name = "bare"\n',
        "kindless.toml": wrong('kind = "grid"\n', ""),
    }


def tables() -> dict[str, str]:
    """Tables of runs, the first of them right."""
    return {
        "runs.csv": CSV,
        "empty.csv": "",
        "header.csv": "N,D,loss\n",
        "nameless.csv": "size,amount,score\n1e6,2e7,3.1\n",
        "ragged.csv": "N,D,loss\n1e6,2e7,3.1\n1e6,2e7\n",
        "twice.csv": "N,D,loss,loss\n1e6,2e7,3.1,3.2\n",
        "words.csv": "N,D,loss\n1e6,2e7,low\n3e6,2e7,lower\n",
        "comma.csv": 'N;D;loss\n1e6;2e7;"3,1"\n3e6;2e7;"3,0"\n',
        "negative.csv": "N,D,loss\n-1e6,2e7,3.1\n3e6,2e7,3.0\n",
        "few.csv": "N,D,loss\n1e6,2e7,3.1\n3e6,2e7,3.0\n",
        "runs.json": '{"N": 1e6, "D": 2e7, "loss": 3.1}',
        "broken.jsonl": '{"N": 1e6, "D": 2e7, "loss": 3.1}\n{"N": 1e6,\n',
        "runs.pkl": "not opened",
        "runs.xlsx": "not opened",
        "runs.parquet": "no parquet",
    }


def prepare(folder: Path, document: dict) -> None:
    """All files into a folder: sweeps, tables, fits (one right, others broken), and folders that
    hold no results.
    """
    for name, text in {**sweep_files(), **tables()}.items():
        (folder / name).write_text(text)
    dump(document, folder / "fit.json")
    dump(document | {"bootstrap": None}, folder / "no-draws.json")
    dump(
        document
        | {
            "source": document["source"]
            | {"digest": "b" * 64, "convention": {"params": "total", "flops": "exact"}}
        },
        folder / "total.json",
    )
    (folder / "edited.json").write_text(
        (folder / "fit.json").read_text().replace('"status": "ok"', '"status": "OK"')
    )
    (folder / "newer.json").write_text(json.dumps({"schema": 99}))
    (folder / "other.json").write_text("{}")
    (folder / "nothing").mkdir()
    (folder / "a-file").write_text("a file")
    (folder / "notes.txt").write_text("to be or not to be\n" * 400)


TINY, FIT, LAW = "tiny.toml", "fit.json", "published:besiroglu2024"
MODEL = "d_model=64,n_layers=2"
LINES: list[list[str]] = [
    ["plann", TINY],
    ["plan"],
    ["plan", "absent.toml"],
    ["plan", "nothing"],
    *(["plan", name] for name in sweep_files() if name != TINY),
    ["plan", TINY, "optim.lr"],
    ["plan", TINY, "optim.learning_rate=0.1"],
    ["plan", TINY, "optim.lr=fast"],
    ["plan", TINY, "lr=0.1"],
    ["plan", TINY, "design.seeds=[0, 1]"],
    ["plan", TINY, "recipe=[]"],
    ["plan", TINY, "model.norm=[rmsnorm,layer]"],
    ["plan", TINY, "--no-probe", "--mesh", "data=two"],
    ["plan", TINY, "--no-probe", "--mesh", "rows=2"],
    ["plan", TINY, "--no-probe", "--remat", "all"],
    ["plan", TINY, "--no-probe", "--device", "h1000"],
    ["plan", TINY, "--no-probe", "--target", "big"],
    ["plan", TINY, "--json", "--csv"],
    ["run", "absent.toml"],
    ["run", "key.toml"],
    ["run", "corpus.toml"],
    ["run", TINY, "optim.lrr=3e-4"],
    ["run", TINY, "--workers", "0"],
    ["run", TINY, "--max-seconds", "nan"],
    ["run", TINY, "--no-such-option"],
    ["run", TINY, "--out", ""],
    ["run", TINY, "--out="],
    ["run", TINY, "--executor", "locl"],
    ["run", TINY, "--max-flops", "1e15x"],
    ["run", TINY, "--max-flops", "0"],
    ["run", TINY, "--pack", "auto"],
    ["run", TINY, "--dry-run"],
    ["run", TINY, "--slurm", "partition=gpu"],
    ["run", TINY, "--hosts", "2"],
    ["run", TINY, "--simulate", "hoffmann2022"],
    ["run", TINY, "--simulate", "published:hoffman2022"],
    ["run", TINY, "--out", "a-file"],
    ["tune", TINY],
    ["tune", TINY, "optim.lrr=3e-4"],
    ["train", TINY],
    ["train", TINY, "--run", "0123456789ab"],
    ["status", "absent"],
    ["status", "nothing"],
    ["results", "check", "absent"],
    ["results", "compact", "nothing"],
    ["fit", "absent.csv"],
    ["fit", "nothing"],
    *(["fit", name] for name in tables() if name != "runs.csv"),
    ["fit", "runs.csv", "--law", "chinchila"],
    ["fit", "runs.csv", "--columns", "N=size,D=D,L=loss"],
    ["fit", "runs.csv", "--columns", "N"],
    ["fit", "runs.csv", "--columns", "N=N,D=D", "--columns", "L=loss"],
    ["fit", "runs.csv", "--where", "loss < low"],
    ["fit", "runs.csv", "--where", "loss < 0"],
    ["fit", "runs.csv", "--where", "__import__('os')"],
    ["fit", "runs.csv", "--ci", "95"],
    ["fit", "runs.csv", "--holdout", "all"],
    ["fit", "runs.csv", "--fix", "alpha"],
    ["fit", "runs.csv", "--fix", "gamma=0.3"],
    ["fit", "runs.csv", "--fix", "E=nan"],
    ["fit", "runs.csv", "--fix", "A=-3,alpha=0.3"],
    ["fit", "runs.csv", "--fix", "E=9"],
    ["fit", "runs.csv", "--params", "total"],
    ["fit", "runs.csv", "runs.csv"],
    ["fit", "runs.csv", "--objective", "mse-log", "--delta", "0.1"],
    ["fit", "runs.csv", "--cluster", "seed"],
    ["fit", "runs.csv", "--approach", "envelope", "--bootstrap", "0"],
    ["fit", "runs.csv", "--bootstrap", "0", "--out", "a-file/fit.json"],
    ["predict", "absent.json", "--flops", "1e21"],
    ["predict", FIT],
    ["predict", FIT, "--flops", "-1"],
    ["predict", FIT, "--n-params", "7B", "--steps", "9"],
    ["predict", FIT, "--n-params", "7B", "--n-params=8B"],
    ["predict", FIT, "--flops", "2 miles"],
    ["predict", FIT, "--hours", "7"],
    ["predict", FIT, "--loss", "0.5"],
    ["predict", FIT, "--flops", "nan"],
    ["predict", LAW, "--flops", "1e23", "--smaller", "0.01"],
    ["predict", LAW, "--flops", "1e23", "--device", "h100", "--mfu", "7"],
    ["predict", LAW, "--device", "h100"],
    ["predict", LAW, "--models", "--smaller", "0.5"],
    ["predict", LAW, "--flops", "1e23", "--smaller", "0.5", "--csv"],
    ["predict", FIT, "--flops", "1e21", "--smaller", "2"],
    ["predict", FIT, "--flops", "1e21", "--emit", TINY],
    ["predict", FIT, "--emit", "new.toml"],
    ["predict", "other.json", "--flops", "1e21"],
    ["predict", "edited.json", "--flops", "1e21"],
    ["predict", "newer.json", "--flops", "1e21"],
    ["predict", "published:hoffman2022", "--flops", "1e21"],
    ["predict", "hoffmann2022", "--flops", "1e21"],
    ["predict", LAW, "--flops", "1e21", "--device", "abacus"],
    ["next", "absent", "--budget", "1e12", "--target", "1e13"],
    ["next", FIT, "--budget", "much", "--target", "1e13"],
    ["next", FIT, "--budget", "1e12"],
    ["reconcile", "absent.csv"],
    ["report"],
    ["report", "absent"],
    ["report", "nothing"],
    ["report", FIT, "--budgets", "1e13"],
    ["report", FIT, "--out", "a-file"],
    ["report", FIT, "total.json", "--out", "out"],
    ["report", FIT, "no-draws.json", "total.json", "--out", "out"],
    ["count"],
    ["count", "--model", "d_model=64,n_layer=2"],
    ["count", "--model", "d_model=sixty"],
    ["count", "--model", "n_layers=2"],
    ["count", "--model", "d_model="],
    ["count", "--model", "d_model=7"],
    ["count", "--model", "d_model=64,n_experts=2,top_k=3"],
    ["count", "--model", MODEL, "--device", "h1000"],
    ["coord-check", TINY, "--widths", "64"],
    ["coord-check", TINY, "--widths", "64,big"],
    ["coord-check", TINY, "--widths", "31,32"],
    ["coord-check", TINY, "--depths", "2,-4"],
    ["data", "prepare", "absent.txt", "--out", "store"],
    ["data", "prepare", "notes.txt", "--out", "a-file"],
    ["data", "prepare", "notes.txt", "--out", "store", "--tokenizer", "bpee"],
    ["data", "prepare", "notes.txt", "--out", "store", "--val-frac", "1"],
    ["data", "info", "absent"],
    ["init", TINY, "--yes"],
    ["init", "new.toml", "--budget", "ten", "--yes"],
    ["init", "new.toml", "--device", "h1000", "--yes"],
    ["init", "new.toml", "--data", "absent", "--yes"],
    ["init", "new.toml", "--budget", "1e10", "--device", "cpu", "--data", "stdlib"],
    ["init", "new.toml", "--minutes", "10", "--budget", "1e13", "--yes"],
    ["init", "new.toml"],
    ["schema", "--out", "notes.txt"],
    ["plan", TINY, "seeds=1"],
    ["plan", TINY, "design.kind=isoflop"],
    ["plan", TINY, "--count", "2"],
    ["run", TINY, "--mesh", "data=2", "--workers", "2"],
    ["tune", TINY, "--emit", TINY],
    ["tune", TINY, "--executor", "slurm"],
    ["train", TINY, "--run"],
    ["status", TINY],
    ["results", "check", "nothing"],
    ["results", "export", "nothing", "--to", "tensorbord", "--out", "boards"],
    ["results", "export-model", "nothing", "0123456789ab", "--out", "model"],
    ["fit", FIT],
    ["predict", FIT, "--flops", "1e21", "--inference-tokens", "many"],
    ["next", FIT, "--budget", "1e12", "--target", "-1"],
    ["next", FIT, "--target", "1e13"],
    ["next", FIT, "--budget", "1e12", "--target", "1e13", "--count", "3"],
    ["next", FIT, "--budget", "1e12", "--target", "1e13", "--largest", "1e9"],
    ["next", "--pool", "runs.csv", "--target", "runs.csv", "--out", "next.toml"],
    ["next", "--pool", "runs.csv", "--target", "runs.csv", "--law", "power", "--formula", "L=N"],
    ["predict", FIT, "--flops", "1e13,1e14", "--smaller", "0.5"],
    ["predict", FIT, "--flops", "1e13", "--n-params", "1e5", "--emit", "next.toml"],
    ["next", "--pool", "runs.csv", "--target", "runs.csv", "--cost", "6*X"],
    ["reconcile", "nothing"],
    ["reconcile", "runs.csv", "--ci", "2"],
    ["reconcile", "runs.csv", "--omega", "-1"],
    ["report", "runs.csv"],
    ["report", "absent", "--watch"],
    ["report", FIT, "--style", "papr"],
    ["data", "info", "a-file"],
    ["data", "prepare", "nothing", "--out", "store"],
    ["init", "new.toml", "--hours", "3"],
    ["init", "new.toml", "--data", "stdlib", "--glob", "*.md", "--yes"],
    ["doctor", "--jsn"],
]
