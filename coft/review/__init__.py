"""A local web page for editing the classes of a finished run. No image has to be labelled."""
