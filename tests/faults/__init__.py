"""Campaign of generated bad inputs and faults, each with its expected outcome. See docs/reliability.md."""
