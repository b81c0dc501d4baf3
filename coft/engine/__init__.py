"""A run: its settings, its images, the engine and its loop, and the files it writes."""
