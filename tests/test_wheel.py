"""What an installer gets: every file of the package, its types, one version. `make wheel-check`
installs it for good.
"""

import re
import tomllib
from pathlib import Path

import pytest

import scaling
from benchmarks.wheel import NEEDED, files_of_the_package

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_package_holds_its_types_and_templates():
    assert files_of_the_package() >= NEEDED
    target = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert target == {"packages": ["scaling"]}, "no pattern leaves a file out"


def test_hatchling_would_pack_every_file():
    pytest.importorskip(
        "hatchling", reason="hatchling is not installed: make wheel-check builds the wheel"
    )
    from hatchling.builders.wheel import WheelBuilder

    packed = {
        Path(item.distribution_path).as_posix()
        for item in WheelBuilder(str(ROOT)).recurse_included_files()
    }
    assert packed == files_of_the_package()


def test_the_citation_names_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    said = dict(re.findall(r"^([a-z-]+): \"?([^\"\n]+)\"?$", text, flags=re.MULTILINE))
    assert {key: said[key] for key in ("cff-version", "title", "version", "license")} == {
        "cff-version": "1.2.0",
        "title": "scaling",
        "version": scaling.__version__,
        "license": PROJECT["project"]["license"],
    }
    assert said["abstract"] == PROJECT["project"]["description"]
    assert said["version"] == PROJECT["project"]["version"]
