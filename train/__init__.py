"""Trainers: command line, clock, disk and pictures around the pure library."""
