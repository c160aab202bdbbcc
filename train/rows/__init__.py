"""Rows before training: the table assembled, and the originals split."""
