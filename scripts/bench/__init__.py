"""What steps, encoding, labelling and predictions cost (`bench.sh`), in a process like that of a run."""

from coft.core.startup import settle

settle()
