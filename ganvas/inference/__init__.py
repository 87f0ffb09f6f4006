"""From a model folder to translated pictures."""
