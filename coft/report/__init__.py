"""What a run found, as one page for people to look at: `report.html`. Nothing here reads a label of the pool."""
