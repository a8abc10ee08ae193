"""A report that follows a sweep while it trains: a page on this machine alone, written again from
the rows on disk whenever they change. Nothing is written into the sweep's folder.
"""

from __future__ import annotations

import json
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from scaling.errors import ScalingError
from scaling.predict.predict import predict
from scaling.predict.prediction import PredictionResult
from scaling.render.figure import Axis, Figure, Line, Markers
from scaling.report.inputs import load_inputs
from scaling.report.page import Live, html
from scaling.report.sections import Report, build_report
from scaling.store.run_files import has_runs

HOST = "127.0.0.1"  # loopback only: the page is for this machine
CHANGING = ("plan.json", "runs/*.parquet", "merged/*.parquet", "failures/*.txt", "tuning.json")


class LiveReport:
    """The page of a sweep's folder, whose forecast is for `budget` FLOPs; `version` counts how
    often it was written, and `lines` say how far the sweep is.
    """

    def __init__(self, folder: Path, budget: float, models: bool = False) -> None:
        self.folder, self.budget, self.models = folder, budget, models
        self.version, self.page = 0, b""
        self.lines: Sequence[str] = ()
        self._seen: object = None
        self._forecasts: list[tuple[int, PredictionResult]] = []  # with the number of runs fitted

    def refresh(self, lines: Sequence[str]) -> None:
        """Take new `lines`, and write the page again where rows or failures have changed."""
        self.lines = lines
        paths = sorted(path for pattern in CHANGING for path in self.folder.glob(pattern))
        seen = [(path.name, path.stat().st_mtime_ns) for path in paths]
        if seen != self._seen:
            version = self.version + 1
            self.page = html(self._report(), Live(version, lines)).encode()
            self.version, self._seen = version, seen

    def _report(self) -> Report:
        with tempfile.TemporaryDirectory() as scratch:
            try:
                inputs = load_inputs([self.folder], Path(scratch) / "fit.json", refit=True)
            except ScalingError as error:
                none = not has_runs(self.folder)
                notice = "No run has finished yet." if none else str(error)
                return Report(self.folder.resolve().name, "", (), notices=(notice,))
        forecast = None
        if inputs.main is not None:
            with suppress(ScalingError):  # the report says why
                forecast = predict(inputs.main, flops=self.budget)
                self._forecasts.append((inputs.main.n_points, forecast))
        command = f"scaling report {self.folder}"
        history = forecast_history(self._forecasts)
        return build_report(inputs, forecast, command, models=self.models, history=history)


def forecast_history(forecasts: Sequence[tuple[int, PredictionResult]]) -> Figure | None:
    """How N* at one budget and its interval have moved with the number of runs fitted."""
    if len(forecasts) < 2:
        return None
    runs = [count for count, _ in forecasts]
    sizes = [forecast.n_params for _, forecast in forecasts]
    n, lo, hi = (
        [getattr(size, end) or size.value for size in sizes] for end in ("value", "lo", "hi")
    )
    dots = Markers(runs, n, "N* with its interval", 0, "circle", 8, lo, hi)
    return Figure(
        "forecast-history",
        "How the forecast narrows",
        "N* at the budget of the answer, fitted each time that runs had finished.",
        Axis("runs fitted", unit="count"),
        Axis("parameters N*", log=True, unit="count"),
        (Line(runs, n, "", 0), dots),
    )


def bind(live: LiveReport, port: int) -> ThreadingHTTPServer:
    """A server of the page at http://127.0.0.1:port (0 takes a free port). Raises ScalingError for
    a port that cannot be used.
    """
    try:
        return ThreadingHTTPServer((HOST, port), _handler(live))
    except OSError as error:
        raise ScalingError(
            f"port {port} of {HOST} cannot be used: {error.strerror}",
            where="--port",
            remedy="name another one, or --port 0 for any that is free",
        ) from None


def follow(
    server: ThreadingHTTPServer, live: LiveReport, read_lines: Callable[[], Sequence[str]]
) -> None:
    """Serve the page, and look every second whether it has to be written again, until
    interrupted.
    """
    Thread(target=server.serve_forever, daemon=True).start()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a script's background
    try:
        while True:
            time.sleep(1.0)
            live.refresh(read_lines())
    finally:
        server.shutdown()


def _handler(live: LiveReport) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """GET / is the page, GET /state what the open page asks for every second."""

        def do_GET(self) -> None:
            host = self.headers.get("Host", "").partition(":")[0]
            if host not in (HOST, "localhost"):  # a foreign name that resolves to here
                self.send_error(403)
            elif self.path == "/":
                self._send("text/html; charset=utf-8", live.page)
            elif self.path == "/state":
                state = {"version": live.version, "lines": list(live.lines)}
                self._send("application/json", json.dumps(state).encode())
            else:
                self.send_error(404)

        def _send(self, kind: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            with suppress(ConnectionError):  # the browser has left
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Requests are not logged."""

    return Handler
