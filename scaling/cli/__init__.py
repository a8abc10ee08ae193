"""The command line: a command parses, calls one function of the package, and prints."""


def main() -> None:
    """Entry point of the `scaling` command."""
    import gc

    gc.set_threshold(50_000)  # collecting while modules are imported takes 5 % of a fit
    from scaling.cli.app import app

    try:
        app()
    finally:
        gc.freeze()  # what is left is not collected at the exit, which takes 0.15 s
