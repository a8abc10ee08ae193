"""The command line: a command parses, calls one function of the package, and prints."""


def main() -> None:
    """Entry point of the `scaling` command."""
    import gc

    from scaling.cli.app import app

    gc.set_threshold(50_000)  # collecting while modules are imported takes 5 % of a fit
    app()
