"""The command `coft` of the installed package."""
