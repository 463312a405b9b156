"""Suites: modules with ``SIZES`` ("toy", "cpu", "gpu") and ``cases(size, device)``, which yields pieces of work."""
