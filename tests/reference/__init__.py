"""Slow and obvious computations that share no code with the library."""
