"""What the command lines of all models share; only their `__main__` files import it."""
