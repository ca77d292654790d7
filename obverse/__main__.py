"""`python -m obverse`: the command line."""

from .cli import main

main()
