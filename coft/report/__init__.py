"""The report of a run, a single page `report.html`. Nothing in this package reads a label of the pool."""
