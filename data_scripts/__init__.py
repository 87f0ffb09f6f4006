"""Scripts that fetch, make and check datasets: ``python -m data_scripts NAME``."""
