import json
import subprocess
import sys
from io import StringIO

import pytest
from rich.console import Console

from scaling.cli import doctor
from scaling.execute import machine
from scaling.render.rich_table import page


@pytest.fixture
def healthy(monkeypatch, tmp_path):
    """An examination of this machine, with free memory, without the seconds that jax takes."""
    monkeypatch.setenv("SCALING_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NPROC", raising=False)
    found = {
        "backend": "cpu",
        "devices": [{"platform": "cpu", "kind": "cpu", "memory_bytes": None}] * 2,
    }
    monkeypatch.setattr(machine, "ask_devices", lambda: found)
    examined = machine.examine()
    examined["memory"]["available_bytes"] = 2**35
    return examined


def told(examination):
    return [what for what, _ in machine.problems(examination)]


@pytest.mark.slow
def test_doctor_prints_json_and_tables(healthy, tmp_path):
    assert json.loads(json.dumps(healthy, allow_nan=False)) == healthy
    assert healthy["disk"]["free_bytes"] > 0
    assert healthy["cpu"]["usable_cores"] >= 1
    assert healthy["packages"]["jax"]["fits"]
    assert healthy["cache"] == {"folder": str(tmp_path / "cache"), "writable": True}
    assert not (tmp_path / "cache").exists()
    text = StringIO()
    Console(file=text, width=1000).print(page(*doctor.render(healthy)))
    assert "backend cpu, devices.cpu 2" in text.getvalue()
    assert "writable True" in text.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "change", "expected"),
    [
        ("jax", {"error": "no answer within 90 s"}, "jax does not start: no answer"),
        ("disk", {"free_bytes": 1000}, "1000 B free"),
        ("memory", {"limit_bytes": 2**30}, "1 GiB of memory"),
        ("cache", {"writable": False}, "not yours to write"),
        ("environment", {"NPROC": "many"}, "NPROC = 'many'"),
        ("environment", {"NPROC": "100000"}, "NPROC = '100000'"),
    ],
)
def test_doctor_reports_problems_with_a_remedy(healthy, part, change, expected):
    before = told(healthy)
    healthy[part] = healthy[part] | change
    added = [(what, remedy) for what, remedy in machine.problems(healthy) if what not in before]
    assert len(added) == 1
    assert expected in added[0][0]
    assert added[0][1]


@pytest.mark.slow
def test_doctor_reports_missing_packages_and_unused_accelerators(healthy):
    healthy["packages"]["optax"] = {"installed": None, "wanted": ">=9", "fits": False}
    assert "optax is missing; wanted: >=9" in told(healthy)
    healthy["accelerator_driver"] = True
    assert "an accelerator is here, but jax uses the CPU" in told(healthy)


@pytest.mark.slow
def test_text_from_outside_cannot_draw_on_the_screen(healthy):
    healthy["environment"]["XLA_FLAGS"] = "[/bold] \x1b[31mred"
    text = StringIO()
    Console(file=text, width=200, force_terminal=False).print(page(*doctor.render(healthy)))
    assert "[/bold]" in text.getvalue()
    assert "\x1b" not in text.getvalue()


@pytest.mark.slow
def test_doctor_queries_devices_in_a_child_process(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "nonsense")
    assert "nonsense" in machine.ask_devices()["error"]
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert machine.ask_devices()["backend"] == "cpu"
    monkeypatch.setattr(machine, "DEVICE_SECONDS", 0.01)
    assert machine.ask_devices() == {"error": "no answer within 0.01 s"}


@pytest.mark.slow
def test_the_doctor_imports_no_jax():
    code = "import sys, scaling.cli.doctor, scaling.execute.machine; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
