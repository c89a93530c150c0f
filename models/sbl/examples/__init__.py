"""Worked examples of sparse Bayesian learning."""
