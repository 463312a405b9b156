"""The suites: each has ``SIZES`` ("toy", "cpu", "gpu") and ``cases(size, device)``, one piece of work at a time."""
