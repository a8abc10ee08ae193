"""The command line: a command parses, calls one function of the package, and prints."""


def main() -> None:
    """Entry point of the `scaling` command."""
    import atexit
    import gc
    import os
    import sys
    import threading

    gc.set_threshold(50_000)  # collecting while modules are imported takes 5 % of a fit
    from scaling.cli.app import app

    try:
        app()
    except SystemExit as end:
        if "jax" in sys.modules or threading.active_count() > 1 or not isinstance(end.code, int):
            raise
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
        except OSError:
            raise end from None
        atexit._run_exitfuncs()
        os._exit(end.code)  # freeing every module and array takes 0.15 s
