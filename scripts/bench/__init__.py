"""What steps, encoding, labelling and predictions cost (`bench.sh`)."""
