"""The fault campaign: bad inputs and faults by category, each with what is right. See docs/reliability.md."""
