"""The whole of a tuning on simulated runs, whose best rate is 0.16 / d_model, and a tiny one on
real runs.
"""

import json
import math
import os
import signal
import subprocess
from functools import partial

import pytest

from scaling import files
from scaling.config import PowerRule, Sweep
from scaling.config.sweep_file import dump_sweep, load_sweep
from scaling.errors import ScalingError
from scaling.execute.options import RunOptions
from scaling.execute.run_sweep import SweepTrainer
from scaling.execute.sweep_folder import SweepFolder
from scaling.plan import plan
from scaling.store import run_files
from scaling.store.rows import Measurement, Provenance, rows
from scaling.tasks import open_task
from scaling.tuning.document import TuningResult, load_tuned, write_tuned_sweep
from scaling.tuning.fields import half_life, is_pending, timescale
from scaling.tuning.tune import table_folders, tune
from scaling.warning import WarningCode
from tests.execute.sweeping import WAIT, AtASave, command, scaling, wait_for
from tests.sweep_files import tiny

pytestmark = pytest.mark.slow

SOURCE = Provenance("known", None, "0")
LAW = "published:besiroglu2024"
SIZES = [2e7, 1e8, 5e8]
OFF = {  # a recipe whose rates are eight times the best
    "name": "off",
    "design": {
        "kind": "isoflop",
        "budgets": [1e18, 1e20],
        "sizes": SIZES,
        "tokens_per_param_range": [1, 2000],
    },
    "recipe": {"lr_width": 1.28},
    "base": {"task": {"kind": "synthetic", "seq_len": 1024}},
    "tuning": [{"field": "optim.lr", "seeds": [0, 1, 2, 3]}],
}


def off(**changes):
    return Sweep.model_validate(OFF | changes)


def planner(sweep, law=None):
    task = sweep.base.task
    return partial(plan, task=task, vocab_size=open_task(task).vocab_size, simulated=law)


def simulated(sweep, folder, law=LAW):
    """The tuning of a sweep on simulated runs, and how many runs each stage trained."""
    trained = []

    def train(place, planned):
        work = SweepTrainer(RunOptions(simulate=law, on_message=lambda message: None))
        work.train(SweepFolder(place), planned)
        trained.append(work.runs)

    return tune(
        sweep,
        planner(sweep, law),
        folder,
        train,
        law,
    ), trained


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    return folder, *simulated(off(), folder)


def test_value_grid_extends_to_the_optimum_at_every_size(tuned):
    _, found, _ = tuned
    (field,) = found.fields
    assert [round(size.size) for size in field.sizes] == [round(size) for size in SIZES]
    for size in field.sizes:
        best = 0.16 / size.d_model
        assert size.state == "interior"
        assert size.optimum.curvature is not None
        assert abs(size.optimum.log_value - math.log(best)) < 3 * size.optimum.se_log
        assert size.optimum.se_log < 0.2
        assert (
            min(item.index for item in size.values if item.loss) < -2
        )  # beyond the indices that the file asks for
        assert size.recipe.known_from == "short_runs"
        assert 0.25 < size.recipe.excess < 0.5  # three octaves at .04 each squared
        assert size.rule.excess < 0.02
    assert not found.warnings


def test_the_rule_is_that_of_the_widths(tuned):
    _, found, _ = tuned
    power = found.fields[0].rule
    (small, _, large) = found.fields[0].sizes
    exact = -math.log(large.d_model / small.d_model) / math.log(large.n_params / small.n_params)
    assert abs(power.n_power - exact) < 3 * power.n_power_se
    assert found.tuned_sweep.recipe.lr_rule == PowerRule(
        coef=power.coef, n_power=power.n_power, n_range=power.n_range
    )
    assert not is_pending(found.tuned_sweep)


def test_hopeless_values_get_short_runs_only_and_diverged_ones_none(tuned):
    _, found, _ = tuned
    for size in found.fields[0].sizes:
        trained = {item.index for item in size.values if item.losses}
        assert trained < {item.index for item in size.values}
        assert max(trained) < 0
        assert any(item.state == "diverged" for item in size.values)


def test_second_tuning_trains_nothing_and_returns_the_same(tuned):
    folder, found, trained = tuned
    assert sum(trained) == found.fields[0].runs
    again, nothing = simulated(off(), folder)
    assert nothing == []
    assert again == found


def test_every_tuning_run_is_an_ordinary_run_of_a_sweep(tuned):
    folder, found, _ = tuned
    (place,) = table_folders(off(), folder)
    assert place == folder / "tuning" / "optim.lr"
    sweep = load_sweep(place / "sweep.toml")
    held = plan(sweep, sweep.base.task, open_task(sweep.base.task).vocab_size, LAW)
    assert {item.run_id for item in held.runs} == run_files.finished_run_ids(place)
    assert len(held.runs) == found.fields[0].runs


def test_tuning_document_belongs_to_its_sweep_file(tuned, tmp_path):
    _, found, _ = tuned
    found.save(tmp_path)
    stamp = (tmp_path / "tuning.json").stat().st_mtime_ns
    found.save(tmp_path)
    assert (tmp_path / "tuning.json").stat().st_mtime_ns == stamp
    assert load_tuned(tmp_path, off(), LAW)[0] == found.tuned_sweep
    assert "simulated" in load_tuned(tmp_path, off())[1]
    assert "another version" in load_tuned(tmp_path, off(recipe={"lr_width": 0.5}), LAW)[1]
    assert load_tuned(tmp_path / "elsewhere", off(), LAW)[1] == "not tuned yet"
    (tmp_path / "tuning.json").write_bytes(
        (tmp_path / "tuning.json")
        .read_bytes()
        .replace(b'"edge"', b'"egde"')
        .replace(b"interior", b"interjor")
    )
    assert "corrupt" in load_tuned(tmp_path, off(), LAW)[1]


def test_no_interior_optimum_is_an_error_with_a_remedy(tmp_path):
    with pytest.raises(ScalingError, match="no interior optimum at any size") as caught:
        simulated(off(tuning=[{"field": "optim.lr", "max_extensions": 0}]), tmp_path)
    assert "start nearer (best so far: " in caught.value.remedy


def test_optimum_at_the_edge_is_marked_and_left_out_of_the_rule(tmp_path):
    """The smallest size may not grow far enough: the recipe is off by more there."""
    steep = {"lr_rule": {"coef": 4e9, "n_power": -1.55}}
    found, _ = simulated(
        off(
            recipe=steep, tuning=[{"field": "optim.lr", "max_extensions": 2, "seeds": [0, 1, 2, 3]}]
        ),
        tmp_path,
    )
    (field,) = found.fields
    states = {size.size: size.state for size in field.sizes}
    assert set(states.values()) == {"edge", "interior"}
    assert any(item.code == WarningCode.EDGE_OPTIMUM for item in found.warnings)
    interior = [size.n_params for size in field.sizes if size.state == "interior"]
    if field.rule.kind == "power":
        assert field.rule.n_range == (min(interior), max(interior))


def test_one_size_gives_a_ratio_that_scales_the_recipes_own_rule(tmp_path):
    found, _ = simulated(
        off(tuning=[{"field": "optim.lr", "sizes": [1e8], "seeds": [0, 1, 2, 3]}]), tmp_path
    )
    (field,) = found.fields
    assert (field.rule.kind, field.rule.ratio) == ("ratio", pytest.approx(1 / 8, rel=0.2))
    assert found.tuned_sweep.recipe.lr_width == pytest.approx(0.16, rel=0.2)


# of runs whose losses are known: best rate 2 / N^.5, best batch 4 N^.5 tokens, best half-life N / 2
# tokens
SURFACE = {
    "name": "surface",
    "design": {"kind": "ladder", "sizes": ["4k", "16k", "60k"], "tokens_per_param": [60, 240]},
    "recipe": {"n_layers": 2, "size_tolerance": 1.0},
    "base": {"task": {"kind": "synthetic", "n_facts": 64, "n_symbols": 16, "seq_len": 30}},
}


def octaves(value, best):
    return math.log2(value / best) ** 2


def known(sweep, folder, batch_power=0.0):
    """The tuning of a sweep whose runs end on a known surface, and the number of runs; its best
    rate may grow with a power of the batch, and it remembers 0.4 of a run at best.
    """
    count = []

    def train(place, planned):
        for item in planned.runs:
            run, n = item.run, item.n_params["with_head"]
            loss = (
                2
                + 0.05 * octaves(run.optim.lr, 2 * n**-0.5 * run.batch_tokens**batch_power)
                + 0.05 * octaves(run.batch_tokens, 4 * n**0.5)
            )
            loss += 0.05 * octaves(half_life(run), 0.5 * n)
            if run.optim.weight_decay:
                loss += 0.05 * octaves(timescale(run), 0.4)
            count.append(
                run_files.write_run(
                    place,
                    rows(
                        planned.sweep.name,
                        run,
                        [Measurement(run.n_steps, "val", "loss", loss)],
                        SOURCE,
                    ),
                )
            )

    return tune(sweep, planner(sweep), folder, train), sum(count)


def test_three_tunings_run_in_turn_and_each_gives_its_rule(tmp_path):
    entries = [
        {"field": "optim.lr"},
        {"field": "batch_size"},
        {"field": "optim.b2"},
        {"field": "optim.lr", "n_values": 3},
    ]
    sweep = Sweep.model_validate(SURFACE | {"tuning": entries})
    found, _ = known(sweep, tmp_path)
    rate, batch, life, again = found.fields
    assert (rate.rule.coef, rate.rule.n_power) == (
        pytest.approx(2, rel=0.02),
        pytest.approx(-0.5, abs=0.01),
    )
    assert batch.rule.n_power == pytest.approx(0.5, abs=0.02)
    assert life.rule.n_power == pytest.approx(1.0, abs=0.05)
    assert again.rule.n_power == pytest.approx(-0.5, abs=0.01)
    assert [size.recipe.value for size in again.sizes] == pytest.approx(
        [rate.rule.at(size.n_params) for size in rate.sizes]
    )
    assert all(
        size.recipe.excess < 1e-3 for size in again.sizes
    )  # what is tuned again has nothing to gain
    recipe = found.tuned_sweep.recipe
    assert all(
        isinstance(rule, PowerRule)
        for rule in (recipe.lr_rule, recipe.batch_rule, recipe.b2_half_life)
    )
    assert [path.name for path in table_folders(sweep, tmp_path)] == [
        "optim.lr",
        "batch_size",
        "optim.b2",
        "optim.lr-2",
    ]
    target = tmp_path / "tuned.toml"
    write_tuned_sweep(target, found.tuned_sweep)
    assert load_sweep(target) == found.tuned_sweep
    assert known(sweep, tmp_path)[1] == 0


def test_tuning_at_several_batches_gives_the_rule_a_power_of_the_batch(tmp_path):
    entry = {"field": "optim.lr", "batch_sizes": [4, 16], "n_values": 7, "short_run_frac": False}
    found, _ = known(Sweep.model_validate(SURFACE | {"tuning": [entry]}), tmp_path, 0.5)
    rule = found.fields[0].rule
    assert (rule.coef, rule.n_power, rule.batch_power) == (
        pytest.approx(2, rel=0.05),
        pytest.approx(-0.5, abs=0.01),
        pytest.approx(0.5, abs=0.01),
    )
    assert [size.batch_tokens for size in found.fields[0].sizes] == 3 * [4 * 30, 16 * 30]
    assert found.tuned_sweep.recipe.lr_rule.batch_power == rule.batch_power
    assert all(size.rule.excess < 1e-3 for size in found.fields[0].sizes)


def test_decay_is_tuned_by_its_share_of_the_run_and_needs_a_start(tmp_path):
    entry = {"field": "optim.weight_decay"}
    recipe = SURFACE["recipe"] | {"decay_timescale": 1.0}
    sweep = Sweep.model_validate(SURFACE | {"recipe": recipe, "tuning": [entry]})
    rule = known(sweep, tmp_path)[0].fields[0].rule
    assert (rule.coef, rule.n_power) == (
        pytest.approx(0.4, rel=0.02),
        pytest.approx(0.0, abs=0.01),
    )
    with pytest.raises(ScalingError, match="is 0, and a grid needs a value to start from"):
        known(Sweep.model_validate(SURFACE | {"tuning": [entry]}), tmp_path / "none")


def test_short_runs_that_are_too_short_are_left_out(tmp_path):
    found, _ = known(
        Sweep.model_validate(SURFACE | {"tuning": [{"short_run_frac": 0.002}]}), tmp_path
    )
    (field,) = found.fields
    assert (
        sum(item.code == WarningCode.NO_SHORT_RUNS for item in found.warnings)
        == sum(all(item.short_run_loss is None for item in size.values) for size in field.sizes)
        > 0
    )
    assert field.rule.n_power == pytest.approx(-0.5, abs=0.01)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tuning": []}, "asks for no tuning"),
        (
            {"axes": [{"field": "optim.lr", "values": [0.1]}]},
            "optim.lr is tuned and an axis at once",
        ),
        ({"tuning": [{"field": "optim.lr", "sizes": [3e7]}]}, "the design trains nothing at 3e"),
    ],
)
def test_what_cannot_be_tuned_is_rejected(tmp_path, changes, words):
    with pytest.raises(ScalingError, match=words):
        simulated(off(**changes), tmp_path)


def test_tune_command_stops_and_resumes_and_run_uses_its_rule(tmp_path, tuned):
    """--max-runs stops it with 75; then `run` tunes the rest first, and trains the tuned sweep."""
    path, folder = tmp_path / "off.toml", tmp_path / "results"
    path.write_text(dump_sweep(off()))
    options = ["--out", folder, "--simulate", LAW]
    stopped = scaling("tune", path, *options, "--max-runs", 50)
    assert stopped.returncode == 75, stopped.stderr
    assert "stopped by --max-runs 50" in stopped.stdout
    assert len(run_files.finished_run_ids(folder / "tuning" / "optim.lr")) == 50
    done = scaling("run", path, *options, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["done"] == 4
    _, found, _ = tuned
    result = TuningResult.load(folder)
    assert result.to_dict() == found.to_dict()
    assert (
        load_sweep(folder / "sweep.toml") == load_sweep(folder / "tuned.toml") == found.tuned_sweep
    )
    again = scaling("tune", path, *options)
    assert again.returncode == 0, again.stderr
    assert "runs to train" not in again.stdout + again.stderr
    assert "rule: optim.lr = " in again.stdout
    assert "interior" in again.stdout


def test_untuned_plan_is_reported_and_slurm_rejects_it(tmp_path):
    path = tmp_path / "off.toml"
    path.write_text(dump_sweep(off()))
    shown = scaling("plan", path, "--no-probe", cwd=tmp_path)
    assert "not tuned yet: optim.lr and run ids are the recipe's guess" in shown.stderr
    refused = scaling("run", path, "--executor", "slurm", "--dry-run", cwd=tmp_path)
    assert refused.returncode == 2
    assert "scaling tune SWEEP" in refused.stderr


@pytest.mark.exhaustive
@pytest.mark.slow
def test_interrupted_tuning_with_real_runs_resumes(tmp_path):
    """Ctrl-C in the middle of a index; the second call trains the rest, and the best rate of three
    is measured.
    """
    entry = {
        "field": "optim.lr",
        "n_values": 3,
        "short_run_frac": False,
        "factor": 4.0,
        "sizes": ["2k"],
        "tokens_per_param": 120,
    }
    path, folder = tmp_path / "tiny.toml", tmp_path / "results"
    path.write_text(
        dump_sweep(
            tiny(recipe={"n_layers": 1, "size_tolerance": 1.0, "lr_width": 0.64}, tuning=[entry])
        )
    )
    stage = folder / "tuning" / "optim.lr"
    options = ["--out", folder, "--workers", 1]
    save = AtASave(tmp_path / "hook", WAIT)
    first = subprocess.Popen(
        command("tune", path, *options),
        env=os.environ | save.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(save.is_reached, first)
    first.send_signal(signal.SIGINT)
    assert first.wait() == 130
    assert len(run_files.finished_run_ids(stage)) < 3
    done = scaling("tune", path, *options, "--json")
    assert done.returncode == 0, done.stderr
    (size,) = json.loads(done.stdout)["fields"][0]["sizes"]
    assert size["state"] == "interior"
    assert len(run_files.finished_run_ids(stage)) == len(size["values"])
    width = load_sweep(folder / "tuned.toml").recipe.lr_width
    assert width == pytest.approx(0.64 * size["optimum"]["value"] / size["recipe"]["value"])
    frame = run_files.load(stage)
    last = (
        frame[(frame["split"] == "val") & (frame["metric"] == "loss")]
        .sort_values("step")
        .groupby("lr")["value"]
        .last()
    )
    assert sorted(last) == sorted(index["loss"] for index in size["values"])


@pytest.mark.exhaustive
def test_foreign_tuning_file_and_folder_are_not_overwritten(tmp_path):
    path, mine = tmp_path / "off.toml", tmp_path / "mine.toml"
    path.write_text(dump_sweep(off()))
    mine.write_text("precious")
    for target in (mine, path, tmp_path):
        done = scaling("tune", path, "--simulate", LAW, "--out", tmp_path / "out", "--emit", target)
        assert done.returncode == 2
        assert "exists already, and `scaling tune` has not written it" in done.stderr
    assert not (tmp_path / "out").exists()
    assert mine.read_text() == "precious"
    other = tmp_path / "other"
    (tmp_path / "else.toml").write_text(dump_sweep(off(name="else", tuning=[])))
    assert scaling("run", tmp_path / "else.toml", "--simulate", LAW, "--out", other).returncode == 0
    before = {each.name for each in other.iterdir()}
    done = scaling("tune", path, "--simulate", LAW, "--out", other)
    assert done.returncode == 2
    assert "holds the sweep 'else', not 'off'" in done.stderr
    assert {each.name for each in other.iterdir()} == before


def test_tuning_of_another_schema_is_not_resumed(tuned):
    folder, _, _ = tuned
    path = folder / "tuning.json"
    files.write_json(path, {"schema": 99})
    assert load_tuned(folder, off(), LAW)[1] == f"{path} has schema 99, this program reads 3"
    path.unlink()
