"""Other methods, to compare CoFT with. Each is a `coft.labelling.protocol.Method`."""
