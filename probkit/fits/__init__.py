"""Fits: fit, predict, diagnose, save and load."""
