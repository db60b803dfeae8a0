"""`python -m matrixbox`."""

from matrixbox.cli import run

run()
