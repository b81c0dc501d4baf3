"""Tests, in a process like that of a run."""

from coft.core.startup import settle

settle()
