"""The plan's JSON document, and plan.json of a sweep's folder."""

import pytest

from scaling import files
from scaling.execute.sweep_folder import CorruptPlan, SweepFolder
from scaling.plan import plan
from scaling.plan.document import PlanDocument, PlanFile, RunOrigin, plan_document, plan_file
from tests.sweep_files import tiny

SWEEP = tiny()
PLAN = plan(SWEEP, SWEEP.base.task, 16)


def test_document_counts_runs_prefixes_and_flops():
    document = plan_document(PLAN, None, 2)
    assert [entry.run_id for entry in document.runs] == [item.run_id for item in PLAN.runs]
    assert document.flops == PLAN.shared_flops
    assert document.flops_alone == PLAN.flops == sum(entry.flops for entry in document.runs)
    assert document.shared_prefixes == sum(bool(group.branches) for group in PLAN.groups)
    assert (document.seconds, document.wall_seconds, document.workers) == (None, None, 2)
    keys = document.to_dict()
    assert keys["schema"] == 1
    assert not {"device", "expected"} & set(keys)
    assert PlanDocument.model_validate(keys) == document


def test_infeasible_cells_keep_their_reason():
    sweep = tiny(design=SWEEP.design.model_dump() | {"tokens_per_param_range": (1.0, 2.0)})
    with pytest.raises(Exception, match="lies outside tokens_per_param_range 1 to 2"):
        plan(sweep, sweep.base.task, 16)
    wide = tiny(design=SWEEP.design.model_dump() | {"tokens_per_param_range": (1.0, 10.0)})
    document = plan_document(plan(wide, wide.base.task, 16), None, 1)
    assert len(document.infeasible) == len(PLAN.runs) - len(document.runs) > 0
    assert all("tokens_per_param_range" in cell.reason for cell in document.infeasible)


def test_plan_file_is_read_back_as_it_was_written(tmp_path):
    folder, origin = SweepFolder(tmp_path), RunOrigin(corpus="text", code="abc")
    folder.write_plan(PLAN, origin)
    assert folder.read_plan() == plan_file(PLAN, origin)
    written = (tmp_path / "plan.json").stat().st_mtime_ns
    folder.write_plan(PLAN, origin)
    assert (tmp_path / "plan.json").stat().st_mtime_ns == written


def test_plan_file_of_another_schema_is_named(tmp_path):
    document = plan_file(PLAN, RunOrigin()).model_dump(mode="json", by_alias=True)
    files.write_json(tmp_path / "plan.json", document | {"schema": 7})
    with pytest.raises(CorruptPlan, match="schema"):
        SweepFolder(tmp_path).read_plan()
    assert PlanFile.model_json_schema(by_alias=True)["properties"]["schema"]["const"] == 1
