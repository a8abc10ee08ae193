"""plan.json names the text of a sweep."""

from scaling.config.task import TextFacts
from scaling.execute.planning import make_plan
from scaling.execute.prepare_folder import origin
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
