"""What our own generators share: the command line, the files of a sample, the
video encoder and the drawing helpers. It is no generator itself."""
