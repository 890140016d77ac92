"""The static report of a run: figures, and the one HTML file made of them."""

from stopgrad.report.html import write_report

__all__ = ["write_report"]
