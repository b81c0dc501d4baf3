"""A run: its settings, its images, the loop, and what it writes."""
