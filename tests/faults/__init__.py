"""The campaign of faults: bad inputs and faults, generated, each with what is right. See docs/reliability.md."""
