"""A run: its settings, its data and networks, the loop, and what the loop writes."""
