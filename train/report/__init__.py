"""The report that a release is signed on: tables, plots, one HTML page."""
