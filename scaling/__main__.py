"""`python -m scaling` is the same as the `scaling` command."""

from scaling.cli import main

main()
