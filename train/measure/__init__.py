"""Measuring: suites, the harness, metrics with intervals, and the gates."""
