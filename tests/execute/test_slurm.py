"""The Slurm engine: its script as text, and the same script on a real Slurm with a stand-in for
`scaling run`.
"""

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from scaling.errors import ScalingError
from scaling.execute import slurm
from scaling.execute.local import launch_prefix
from scaling.execute.slurm import (
    Job,
    limit_seconds,
    nodes,
    parse_settings,
    script,
    submit,
)
from tests.execute.slurm_cluster import running

WEIRD = 'it\'s a "sweep" 100%j $HOME `id` #1'

# What `scaling run` promises the script: 75 with its state saved after USR1 or USR2, 143 after
# TERM, and a second signal is "at once". It says into DIR/events what it sees; DIR/mode says what
# it does: wait for a signal, save until a TERM has come as well, or exit with a code.
STAND_IN = """
import json, os, signal, sys, time
folder = sys.argv[sys.argv.index("--out") + 1]
heard = []
def say(kind, **more):
    element, restart = os.environ["SLURM_ARRAY_TASK_ID"], os.environ.get("SLURM_RESTART_COUNT", "0")
    about = {"kind": kind, "element": element, "restart": restart}
    with open(folder + "/events", "a") as out:
        out.write(json.dumps(about | more) + "\\n")
def note(number, frame):
    heard.append(number)
    say("signal", name=signal.Signals(number).name)
for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, note)
mode = open(folder + "/mode").read()
say("begins", argv=sys.argv[1:], cwd=os.getcwd(), pid=os.getpid())
while not heard:
    if not (mode := open(folder + "/mode").read()).startswith("wait"):
        say("ends")
        sys.exit(int(mode))
    time.sleep(0.05)
end = time.monotonic() + 1.0  # saving takes a while: a second signal would be seen
while time.monotonic() < end or (mode == "wait for TERM" and signal.SIGTERM not in heard):
    time.sleep(0.05)
say("saved", signals=len(heard))
print("state saved", flush=True)
sys.exit(143 if heard[0] == signal.SIGTERM else 75)
"""

# A worker of several tasks: process 0 answers every line, everyone notes lines and signals in a
# file of its own.
TASKS = """
import json, os, signal, sys, time
rank = os.environ["SLURM_PROCID"]
out = open(sys.argv[1] + "/task-" + rank, "a", buffering=1)
signal.signal(signal.SIGUSR1, lambda *_: out.write("USR1\\n"))
if rank == "0":
    print(json.dumps({"ready": os.environ["SLURM_NTASKS"]}), flush=True)
for line in sys.stdin:
    out.write(f"{len(line)}\\n")
    if rank == "0":
        print(json.dumps({"length": len(line), "pad": "x" * len(line)}), flush=True)
out.write("end\\n")
"""

# The coordinator of such a worker, in the place of `scaling run`.
COORDINATOR = """
import json, signal, subprocess, sys, time
from pathlib import Path
from scaling.execute.local import launch_prefix
folder = sys.argv[sys.argv.index("--out") + 1]
command = [*launch_prefix(2), sys.executable, folder + "/tasks.py", folder]
worker = subprocess.Popen(command, stdin=-1, stdout=-1, text=True)
found = {"ready": json.loads(worker.stdout.readline())["ready"], "lengths": []}
for length in (10, 10, 300_000, 10):  # each is answered before the next is sent
    worker.stdin.write("a" * (length - 1) + "\\n")
    worker.stdin.flush()
    found["lengths"].append(json.loads(worker.stdout.readline())["length"])
def wait_for(count):
    files = [Path(folder, f"task-{rank}") for rank in range(2)]
    while not all(file.exists() and len(file.read_text().split()) == count for file in files):
        time.sleep(0.05)
wait_for(4)  # lines in each task
worker.send_signal(signal.SIGUSR1)
wait_for(5)
worker.stdin.close()
found["rest"], found["code"] = worker.stdout.read(), worker.wait()
json.dump(found, open(folder + "/found", "w"))
"""


@pytest.fixture(scope="module")
def slurm_up():
    with running() as cluster:
        yield cluster


@pytest.fixture
def cluster(slurm_up):
    """A real cluster with nothing on it."""
    yield slurm_up
    slurm_up.clear()


class Sweep:
    """A folder whose elements are the stand-in; the lead's tests take `Job`'s own program instead
    (`scaling run`).
    """

    def __init__(self, folder, mode, program=STAND_IN):
        self.folder = folder
        folder.mkdir(parents=True)
        self.mode(mode)
        (folder / "program.py").write_text(program)

    def mode(self, mode):
        (self.folder / "new").write_text(mode)
        (self.folder / "new").rename(self.folder / "mode")

    def job(self, elements=1, **settings):
        program = (sys.executable, str(self.folder / "program.py"))
        return Job(
            "stand-in", self.folder, elements, settings, workdir=self.folder, program=program
        )

    def submit(self, elements=1, **settings):
        self.job_id = submit(self.folder, script(self.job(elements, **settings)))
        return self.job_id

    def events(self, kind):
        path = self.folder / "events"
        lines = path.read_text().splitlines() if path.exists() else []
        return [event for line in lines if (event := json.loads(line))["kind"] == kind]

    def log(self):
        return "".join(path.read_text() for path in sorted((self.folder / "logs").iterdir()))


@pytest.fixture
def sweep(tmp_path):
    return lambda mode, name="sweep", program=STAND_IN: Sweep(tmp_path / name, mode, program)


# ---------------------------------------------------------------- the script as text


@pytest.mark.slow
def test_slurm_script_is_valid_bash_with_the_requested_options(tmp_path):
    options = ("--mesh", "data=2", "--pack", "it's")
    text = script(
        Job(
            "de mo",
            tmp_path / WEIRD,
            4,
            parse_settings("partition=a,b,time=8:00:00,exclusive"),
            options,
            tmp_path,
        )
    )
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash"
    assert {
        '#SBATCH --job-name="scaling-de mo"',
        "#SBATCH --array=0-3",
        '#SBATCH --partition="a,b"',
        "#SBATCH --exclusive",
    } <= set(lines)
    assert {
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --signal=B:USR1@120",
        '#SBATCH --time="8:00:00"',
    } <= set(lines)
    command = (
        next(line for line in lines if line.startswith("command=("))
        .removeprefix("command=(")
        .removesuffix(")")
    )
    folder = str(tmp_path / WEIRD)
    begin = [
        sys.executable,
        "-m",
        "scaling",
        "run",
        f"{folder}/sweep.toml",
        "--out",
        folder,
        "--executor",
        "local",
    ]
    assert shlex.split(command) == [*begin, *options]


def test_directives_come_before_the_first_command(tmp_path):
    lines = script(Job("demo", tmp_path, 1, parse_settings("account=x,gres=gpu:4"))).splitlines()
    last = max(index for index, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert all(
        line.startswith("#") for line in lines[: last + 1]
    )  # sbatch reads none after a command


@pytest.mark.parametrize(
    ("time", "seconds"), [("8:00:00", 120), ("2", 30), ("1", 15), ("1-0", 120), ("0:02", 1)]
)
def test_the_warning_leaves_time_to_train(tmp_path, time, seconds):
    assert f"--signal=B:USR1@{seconds}\n" in script(Job("demo", tmp_path, 1, {"time": time}))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("1:30", 90),
        ("2:00:00", 7200),
        ("1-2", 93600),
        ("1-2:30", 95400),
        ("1-0:0:5", 86405),
        ("UNLIMITED", None),
    ],
)
def test_time_limits_are_read_as_slurm_reads_them(text, seconds):
    assert limit_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "8h", "1:2:3:4", "-5", "1:00:00 ", "٣"])
def test_no_time_limit(text):
    with pytest.raises(ScalingError, match="not a time limit"):
        limit_seconds(text)


def test_slurm_settings_are_parsed():
    assert parse_settings("partition=gpu,gres=gpu:a100:4,nodelist=a,b,exclusive,mem=4G") == {
        "partition": "gpu",
        "gres": "gpu:a100:4",
        "nodelist": "a,b",
        "exclusive": "",
        "mem": "4G",
    }
    assert parse_settings("nodelist=n[1,3-4], constraint=a&b=c, exclusive=user") == {
        "nodelist": "n[1,3-4]",
        "constraint": "a&b=c",
        "exclusive": "user",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("output=x", "output is not yours to set"),
        ("partition=a,array=0-9", "array is not yours to set"),
        ("wrap=id", "wrap is not yours to set"),
        ("partition", "partition has no value"),
        ("partition=", "partition has no value"),
        ("mem=1G,mem=2G", "mem is given twice"),
        ("Partition=a", "'Partition' is not the name of an sbatch option"),
        ("--mem=1G", "'--mem' is not the name of an sbatch option"),
        ("", "'' is not the name of an sbatch option"),
        ("mem=1G\n#SBATCH --uid=0", "holds a line break or a control character"),
        ("nodelist=a,b\nc", "holds a line break or a control character"),
        ("exclusive,", "'' is not the name of an sbatch option"),
    ],
)
def test_bad_settings_are_named(text, said):
    with pytest.raises(ScalingError, match=re.escape(said)) as caught:
        parse_settings(text)
    assert (caught.value.where, caught.value.exit_code) == ("--slurm", 2)
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["0", "2-4", "", "x", "1,2"])
def test_a_run_has_a_fixed_number_of_nodes(tmp_path, text):
    with pytest.raises(ScalingError, match="not a number of nodes"):
        script(Job("demo", tmp_path, 1, {"nodes": text}))


def test_nodes_and_their_launch_prefix():
    assert (nodes({}), nodes({"nodes": "3"}), launch_prefix(1)) == (1, 3, [])
    assert launch_prefix(3) == [
        "srun",
        "--nodes=3",
        "--ntasks=3",
        "--ntasks-per-node=1",
        "--kill-on-bad-exit=1",
    ]


@pytest.mark.parametrize("name", ["a\nb", "a\\b", "a\rb", "a\x1bb"])
def test_folders_that_slurm_cannot_write_to_are_rejected(tmp_path, name):
    good = Job("demo", tmp_path, 1, workdir=tmp_path)
    for job in (
        dataclasses.replace(good, folder=tmp_path / name),
        dataclasses.replace(good, workdir=tmp_path / name),
    ):
        with pytest.raises(ScalingError, match="backslash or a control character"):
            script(job)


def test_missing_sbatch_is_reported_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ScalingError, match="sbatch is not on this machine") as caught:
        submit(tmp_path / "sweep", "#!/bin/bash\n")
    assert caught.value.exit_code == 2
    assert "login node" in caught.value.remedy
    assert "--dry-run" in caught.value.remedy
    assert not (tmp_path / "sweep").exists()


# ---------------------------------------------------------------- the same on a real Slurm


def test_elements_get_their_command_whatever_the_folder_is_called(cluster, sweep):
    made = sweep("0", WEIRD)
    job_id = made.submit(3)
    assert job_id.isdigit()
    for index in range(3):
        assert cluster.ended(f"{job_id}_{index}")["JobState"] == "COMPLETED"
    begun = made.events("begins")
    folder = str(made.folder)
    assert sorted(event["element"] for event in begun) == ["0", "1", "2"]
    assert {tuple(event["argv"]) for event in begun} == {
        ("run", f"{folder}/sweep.toml", "--out", folder, "--executor", "local")
    }
    assert {event["cwd"] for event in begun} == {folder}
    assert sorted(path.name for path in (made.folder / "logs").iterdir()) == [
        f"slurm-{job_id}_{index}.log" for index in range(3)
    ]
    assert made.log().count("ended with exit code 0") == 3


DEAF = """
import os, sys, time
open(os.path.dirname(__file__) + "/events", "a").write('{"kind": "begins"}\\n')
time.sleep(0 if "SLURM_RESTART_COUNT" in os.environ else 6000)
"""


@pytest.fixture(scope="module")
def requeued(slurm_up, tmp_path_factory):
    """Sweeps that were requeued and have ended, by name: Slurm waits a while before it starts a job
    again, for all of them at once.
    """
    folder = tmp_path_factory.mktemp("requeued")
    made = {name: Sweep(folder / name, "wait") for name in ("USR1", "USR2")}
    made |= {"deaf": Sweep(folder / "deaf", "wait", DEAF), "ends": Sweep(folder / "ends", "75")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slurm, "REQUEUES", 1)
        for sweep in made.values():
            sweep.submit()
    for name, signal in {"USR1": "USR1", "USR2": "USR2", "deaf": "USR1"}.items():
        slurm_up.until(partial(made[name].events, "begins"))
        # as Slurm does before the time limit
        slurm_up.ask("scancel", "--batch", f"--signal={signal}", f"{made[name].job_id}_0")
    for name in ("USR1", "USR2"):
        slurm_up.until(partial(made[name].events, "saved"))
        made[name].mode("0")
    for sweep in made.values():
        slurm_up.until(lambda sweep=sweep: len(sweep.events("begins")) == 2)
        sweep.end = slurm_up.ended(f"{sweep.job_id}_0")
    return made


@pytest.mark.parametrize("name", ["USR1", "USR2"])
def test_warned_array_task_saves_and_is_requeued(requeued, name):
    made = requeued[name]
    assert made.end["JobState"] == "COMPLETED"
    assert [event["name"] for event in made.events("signal")] == [f"SIG{name}"]
    assert [event["restart"] for event in made.events("begins")] == ["0", "1"]
    # the script waits for it
    assert re.search(rf"state saved\n.*ended with exit code 75 after SIG{name}", made.log())
    assert made.log().count("ended with exit code") == 2  # the log goes on where it was


def test_task_warned_before_its_handler_is_requeued(requeued):
    assert requeued["deaf"].end["JobState"] == "COMPLETED"


def test_requeues_are_bounded(requeued):
    made = requeued["ends"]
    job = made.end
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("FAILED", "75:0", "1")
    assert [event["restart"] for event in made.events("begins")] == ["0", "1"]
    assert made.log().count("is not requeued") == 1


def test_task_that_cannot_resume_is_not_requeued(cluster, sweep):
    made = {code: sweep(code, code) for code in ("1", "2", "3", "74")}
    for one in made.values():
        one.submit()
    for code, one in made.items():
        job = cluster.ended(f"{one.job_id}_0")
        assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("FAILED", f"{code}:0", "0")
        assert len(one.events("begins")) == 1


def test_cancelled_array_task_gets_one_sigterm_and_is_not_requeued(cluster, sweep):
    made = sweep("wait")
    job_id = made.submit()
    cluster.until(lambda: made.events("begins"))
    cluster.ask("scancel", f"{job_id}_0")
    cluster.until(lambda: made.events("saved"))
    assert cluster.ended(f"{job_id}_0")["JobState"] == "CANCELLED"
    assert [event["name"] for event in made.events("signal")] == ["SIGTERM"]
    assert (cluster.job(f"{job_id}_0")["Restarts"], len(made.events("begins"))) == ("0", 1)
    cluster.until(lambda: "ended with exit code" in made.log())
    assert re.search(r"state saved\n.*ended with exit code 143 after SIGTERM", made.log())


def test_preempted_tasks_are_requeued_once(cluster, sweep):
    """Those of `low` get no grace: a TERM, most often after a USR1, which must not mean "at once".
    Those of `patient` exit long before GRACE is over.
    """
    made = {"low": sweep("wait for TERM", "low"), "patient": sweep("wait", "patient")}
    rivals = []
    for (partition, one), node in zip(made.items(), cluster.nodes, strict=True):
        one.submit(partition=partition, nodelist=node)
        cluster.until(partial(one.events, "begins"))
        size = ("--nodes=1", "--ntasks=1", "--cpus-per-task=2", f"--nodelist={node}")
        rival = ("--partition=high", *size, "--output=/dev/null", "--wrap", "sleep 1")
        rivals.append(cluster.ask("sbatch", "--parsable", *rival))
        cluster.until(partial(one.events, "saved"))
        one.mode("0")
    assert [cluster.ended(rival)["JobState"] for rival in rivals] == ["COMPLETED"] * 2
    for one in made.values():
        cluster.until(lambda one=one: len(one.events("begins")) == 2)
        assert cluster.ended(f"{one.job_id}_0")["JobState"] == "COMPLETED"
        # by Slurm, not by the script as well
        assert [event["restart"] for event in one.events("begins")] == ["0", "1"]
    heard = [event["name"] for event in made["low"].events("signal")]
    assert heard.count("SIGTERM") == 1
    assert heard.count("SIGUSR1") <= 1
    assert [event["name"] for event in made["patient"].events("signal")] == ["SIGUSR1"]


@pytest.mark.slow
@pytest.mark.exhaustive
def test_time_limit_sends_the_warning_signal(cluster, sweep):
    made = sweep("wait")
    job_id = made.submit(time="1")
    cluster.until(lambda: made.events("saved"))
    made.mode("0")
    cluster.until(lambda: len(made.events("begins")) == 2)
    assert cluster.ended(f"{job_id}_0")["JobState"] == "COMPLETED"
    assert [event["name"] for event in made.events("signal")] == ["SIGUSR1"]


def test_sbatch_error_is_passed_on(cluster, sweep):
    made = sweep("0")
    with pytest.raises(ScalingError, match="invalid partition specified: nowhere") as caught:
        made.submit(partition="nowhere")
    assert caught.value.exit_code == 2
    assert not cluster.ask("squeue", "--noheader")


def test_submitted_from_within_a_job_nothing_of_that_job_is_inherited(cluster, sweep, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "499")
    made = sweep("0")
    assert cluster.ended(f"{made.submit()}_0")["JobState"] == "COMPLETED"
    assert [event["restart"] for event in made.events("begins")] == ["0"]


def test_two_node_worker_is_controlled_by_lines(cluster, sweep):
    made = sweep("0", program=COORDINATOR)
    (made.folder / "tasks.py").write_text(TASKS)
    job_id = made.submit(nodes="2")
    assert cluster.ended(f"{job_id}_0")["JobState"] == "COMPLETED", made.log()
    found = json.loads((made.folder / "found").read_text())
    assert (found["ready"], found["lengths"], found["rest"], found["code"]) == (
        "2",
        [10, 10, 300_000, 10],
        "",
        0,
    )
    for rank in range(2):
        assert Path(made.folder, f"task-{rank}").read_text().split() == [
            "10",
            "10",
            "300000",
            "10",
            "USR1",
            "end",
        ]
