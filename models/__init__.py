"""The model families, imported as `probkit.models`."""
