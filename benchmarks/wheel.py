"""`make wheel-check`: the wheel holds every file of the package, and works where nothing but it and
its dependencies is installed.

Builds the wheel, compares its list of files with the source tree, installs it into a new
environment with the versions of
requirements.lock, and runs the command, the module and a fit from an empty folder. Needs a package
index, or pip's find-links.
"""

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEEDED = {
    "scaling/py.typed",
    "scaling/report/templates/index.html.j2",
    "scaling/report/templates/inline.html.j2",
}
NOTEBOOK = """
import sys
from pathlib import Path
from scaling import fit, load
import scaling
assert Path(scaling.__file__).is_relative_to(sys.prefix), scaling.__file__
found = fit(load("runs.csv"), bootstrap=0)
assert abs(found.params.loc["alpha", "value"] - 0.34) < 0.01, found.params
assert "<table>" in found._repr_html_()
"""


def files_of_the_package() -> set[str]:
    """Every file below scaling/ that is no cache."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "scaling").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def built(folder: Path) -> Path:
    """The wheel, made as an installer makes it."""
    pip(Path(sys.executable), "wheel", "--no-deps", "--wheel-dir", folder, ROOT)
    (wheel,) = folder.glob("scaling_sweeps-*.whl")
    return wheel


def pip(python: Path, *words: object) -> None:
    """Run pip quietly; its own message and exit code tell what went wrong."""
    subprocess.run(
        [python, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, words)],
        check=True,
    )


def check_files(wheel: Path) -> None:
    """End with the names of files that lack or are too many."""
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = files_of_the_package()
    if inside != wanted or not inside >= NEEDED:
        sys.exit(
            f"wheel: lacks {sorted((wanted | NEEDED) - inside)}, holds besides "
            f"{sorted(inside - wanted)}"
        )
    print(f"wheel: {wheel.name} holds all {len(inside)} files of the package")


def check_installed(wheel: Path, folder: Path) -> None:
    """Install into a new environment and use it from an empty folder."""
    venv.create(folder / "venv", with_pip=True)
    python, command = folder / "venv/bin/python", folder / "venv/bin/scaling"
    pip(python, "install", "--constraint", ROOT / "requirements.lock", wheel)
    pip(python, "check")
    work = folder / "work"
    work.mkdir()
    sizes = [(n, d) for n in (1e6, 3e6, 1e7, 3e7) for d in (2e7, 1e8, 5e8)]
    (work / "runs.csv").write_text(
        "N,D,loss\n" + "".join(f"{n},{d},{1.7 + 400 / n**0.34 + 400 / d**0.28}\n" for n, d in sizes)
    )
    for words in (
        [command, "--help"],
        [python, "-m", "scaling", "--help"],
        [command, "fit", "runs.csv", "--bootstrap", "0", "--out", "fit.json"],
        [command, "predict", "fit.json", "--flops", "1e20"],
        [command, "report", "fit.json"],
        [python, "-c", NOTEBOOK],
    ):
        done = subprocess.run([*map(str, words)], cwd=work, capture_output=True, text=True)
        shown = " ".join(
            Path(word).name if place == 0 else word for place, word in enumerate(map(str, words))
        ).partition("\n")[0]
        if done.returncode:
            sys.exit(f"wheel: {shown} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        print(f"wheel: {shown}: ok")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        wheel = built(Path(made))
        check_files(wheel)
        check_installed(wheel, Path(made))
