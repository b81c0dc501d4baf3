"""Other methods, to compare CoFT with. Each has the protocol of `coft.method.protocol.Method`."""
