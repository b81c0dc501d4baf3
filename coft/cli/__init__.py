"""The command `coft` of an installed package."""
