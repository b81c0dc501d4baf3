"""CoFT as a library: everything that can be used without Dassl."""
