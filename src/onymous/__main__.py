"""`python -m onymous` is the command line."""

from onymous.cli import app

app()
