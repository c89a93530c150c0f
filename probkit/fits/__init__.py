"""Fits: made, looked at, predicted from, diagnosed, and kept in files."""
