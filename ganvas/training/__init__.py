"""Configuration, the one training loop, checkpoints, schedules, logging."""
