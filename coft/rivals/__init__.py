"""Other methods with which CoFT is compared. Each is a `coft.labelling.protocol.Method`."""
