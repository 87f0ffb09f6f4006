"""Networks and their layers: everything here imports torch alone."""
