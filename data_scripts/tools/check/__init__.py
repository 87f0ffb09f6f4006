"""``python -m data_scripts check``: describe a dataset and report problems."""
