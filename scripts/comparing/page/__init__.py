"""What writes docs/results.md: tables from lists of runs and of kept means (`results.sh`)."""
