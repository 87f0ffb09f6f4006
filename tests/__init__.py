"""Makes `tests` a package, so that processes that tests start import these and no installed one of that name."""
