"""The operators that make one new text of another: rewrites, swaps, filled templates, noise. Each gives `Grown`."""
