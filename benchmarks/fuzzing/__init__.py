"""The parts of `benchmarks.fuzz`: valid files, their mutations, their readers, and the process that tries them."""
