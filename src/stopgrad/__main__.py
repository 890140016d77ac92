"""`python -m stopgrad`."""

from stopgrad.cli import main

main()
