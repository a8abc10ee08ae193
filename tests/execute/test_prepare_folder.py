"""What plan.json says of a sweep, and what is done without it."""

import pytest

from scaling.config.task import TextFacts
from scaling.execute.options import RunOptions
from scaling.execute.planning import make_plan
from scaling.execute.prepare_folder import origin
from scaling.execute.run_sweep import run_sweep
from scaling.execute.sweep_folder import CorruptPlan, SweepFolder
from scaling.execute.verify import inspect
from scaling.tasks.corpus.prepare import prepare
from tests.sweep_files import tiny


def test_the_plan_of_a_folder_names_its_text(tmp_path):
    (tmp_path / "notes.txt").write_text("to be or not to be\n" * 2000)
    prepare([tmp_path / "notes.txt"], tmp_path / "store")
    task = {"kind": "text", "corpus": str(tmp_path / "store")}
    plan = make_plan(tiny(base={"task": task}), on_message=lambda _: None)
    text = origin(plan).text
    assert text == TextFacts(
        source=str(tmp_path / "notes.txt"),
        n_bytes=38_002,
        held_out_bytes=3782,
        train_tokens=34_220,
    )
    assert origin(plan, "published:hoffmann2022").text is None


def test_a_lost_plan_is_named_and_written_anew(tmp_path):
    messages = []
    options = RunOptions(simulate="published:hoffmann2022", on_message=messages.append)
    run_sweep(tiny(), tmp_path, options)
    (tmp_path / "plan.json").unlink()
    with pytest.raises(CorruptPlan, match=r"is missing, though there are finished runs"):
        SweepFolder(tmp_path).read_plan()
    assert [each.path for each in inspect(tmp_path) if each.state == "corrupt"] == ["plan.json"]
    outcome = run_sweep(tiny(), tmp_path, options)
    assert not outcome.counts
    (message,) = messages
    assert "plan.json is missing" in message
    assert "whether code or corpus have changed is not known" in message
    assert {each.state for each in inspect(tmp_path)} == {"whole"}
