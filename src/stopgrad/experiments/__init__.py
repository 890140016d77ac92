"""Claims and comparisons that are run, not asserted."""
