"""Datasets that can be made or downloaded."""
