"""Configurations as studies read them: runs that differ in their seed alone are read once, and no
seed is mistaken for another.
"""

import pandas as pd

from scaling.config import OptimConfig, RunConfig, SyntheticTask
from scaling.config.sweep_file import load_run
from scaling.studies import runs
from tests.report.conftest import sweep_runs


def test_runs_that_share_text_keep_their_own_configuration():
    model = sweep_runs()[0][1].model
    found = [
        RunConfig(
            model=model,
            task=SyntheticTask(kind="synthetic", data_seed=data),
            optim=OptimConfig(lr=lr),
            batch_size=8,
            n_steps=20,
            seed=seed,
        )
        for seed in (0, 7, 12)
        for data in (0, 1)
        for lr in (1e-3, 1e-2)
    ]
    table = pd.DataFrame(
        {
            "run_id": [run.run_id for run in found],
            "config": [run.model_dump_json() for run in found],
        }
    )
    assert runs.configs(table) == {run.run_id: run.model_dump(mode="json") for run in found}
    assert list(runs.configs(table)) == [run.run_id for run in found]


def test_configuration_with_two_seeds_is_parsed_whole(monkeypatch):
    run = sweep_runs()[0][1]
    text = run.model_copy(update={"seed": 5}).model_dump_json()
    whole = load_run(text, "run")
    monkeypatch.setattr(runs, "load_run", lambda text, where: whole)
    table = pd.DataFrame(
        {"run_id": ["a"], "config": [text.replace('"n_facts"', '"seed":3,"n_facts"')]}
    )
    assert runs.configs(table)["a"]["seed"] == 5
