"""`python -m stream` is `unsmear`."""

from stream.cli import main

main()
