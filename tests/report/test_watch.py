"""The page that follows a sweep, without a browser: tests/browser/test_watch.py opens it."""

import http.client
import json
from threading import Thread

import pytest

from scaling.errors import ScalingError
from scaling.report.watch import HOST, LiveReport, bind
from tests.command_line import scaling


@pytest.fixture
def server(results_folder):
    live = LiveReport(results_folder / "none", 1e14)
    live.refresh(["2 of 4 runs"])
    with bind(live, 0) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def get(server, path, host=HOST):
    connection = http.client.HTTPConnection(HOST, server.server_port)
    connection.request("GET", path, headers={"Host": f"{host}:{server.server_port}"})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_only_page_and_state_are_served_and_only_to_this_machine(server):
    status, page = get(server, "/")
    assert status == 200
    assert "<p>2 of 4 runs</p>" in page
    assert "connect-src &#39;self&#39;" in page
    assert json.loads(get(server, "/state")[1]) == {"version": 1, "lines": ["2 of 4 runs"]}
    assert get(server, "/../pyproject.toml")[0] == 404
    assert get(server, "/", host="attacker.example")[0] == 403


def test_page_is_written_again_only_when_files_change(tmp_path):
    live = LiveReport(tmp_path, 1e14)
    live.refresh(["first"])
    live.refresh(["second"])
    assert (live.version, live.lines) == (1, ["second"])
    (tmp_path / "failures").mkdir()
    (tmp_path / "failures" / "0123456789ab.txt").write_text("out of memory\n")
    live.refresh(["third"])
    assert live.version == 2
    assert "out of memory" in live.page.decode()


def test_occupied_port_is_an_error_that_names_the_remedy(server, tmp_path):
    with pytest.raises(ScalingError, match="cannot be used: Address already in use") as error:
        bind(LiveReport(tmp_path, 1e14), server.server_port)
    assert (error.value.exit_code, "--port 0" in error.value.remedy) == (2, True)


@pytest.mark.parametrize("option", [["--json"], ["--out", "page"], ["--style", "paper"]])
def test_watch_writes_no_files(option, results_folder):
    done = scaling("report", results_folder, "--watch", *option)
    assert (done.returncode, "follows one sweep and writes no files" in done.stderr) == (2, True)
