"""Many runs with one command: planned, run, resumed, reused and tabulated (`compare.sh`, `ablate.sh`, `table.sh`)."""
