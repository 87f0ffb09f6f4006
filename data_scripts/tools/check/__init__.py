"""`python -m data_scripts check`: what a dataset holds, and what is wrong with it."""
