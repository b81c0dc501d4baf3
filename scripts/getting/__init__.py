"""Get data sets: where they come from, and how they are downloaded, checked and put in place."""
