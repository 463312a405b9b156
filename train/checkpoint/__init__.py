"""Checkpoints: steps that are written whole and verified before use, in a folder that one run holds at a time."""
