"""Scripts that fetch, make and check data sets: ``python -m data_scripts NAME``."""
