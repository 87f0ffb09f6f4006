"""Metrics, baselines, contact sheets and reports."""
