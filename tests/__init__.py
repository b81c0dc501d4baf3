"""Tests, in a process like that of a run."""

from coft.core.startup import configure_process

configure_process()
