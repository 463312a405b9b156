"""One file, one model: its equations as functions, a NamedTuple of what it can do, and ``build``."""
