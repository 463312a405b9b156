"""Training of any model: one state, one step, one loop."""
