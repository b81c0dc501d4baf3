"""A local page on which a person mends the classes of a finished run, and no label of an image is asked for."""
