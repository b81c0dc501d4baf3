"""A run without Dassl: settings, images, the loop, and the Python interface."""
