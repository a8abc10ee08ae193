"""The command line: a command parses, calls one function of the package, and prints."""


def main() -> None:
    """Entry point of the `scaling` command."""
    from scaling.cli.app import app

    app()
