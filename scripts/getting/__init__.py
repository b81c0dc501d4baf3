"""Data sets: their sources, and how they are downloaded, checked and put in place."""
