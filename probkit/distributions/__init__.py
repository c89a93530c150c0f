"""Densities that NumPyro lacks."""

from probkit.distributions._units import FromStandard, InUnits

__all__ = ["FromStandard", "InUnits"]
