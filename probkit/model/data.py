"""What a family's data are: validated arrays, named as the axes in `dims` are."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
from jaxtyping import Array


class AbstractData(eqx.Module):
    """Validated arrays, named as the axes in `dims` are."""

    @abstractmethod
    def __len__(self) -> int:
        """How many observations it holds."""

    def arrays(self) -> dict[str, Array]:
        """The arrays that a file keeps, by their names in `dims`."""
        return {k: v for k, v in vars(self).items() if eqx.is_array(v)}

    def fields(self) -> dict[str, Any]:
        """What a file keeps besides the arrays."""
        arrays = self.arrays()
        return {k: v for k, v in vars(self).items() if k not in arrays}

    @abstractmethod
    def take(self, indices: Array) -> "AbstractData":
        """The observations at `indices`, standing for all of them."""

    @classmethod
    @abstractmethod
    def restore(cls, arrays: dict[str, Any], fields: dict[str, Any]) -> "AbstractData":
        """The data again, from their arrays and their plain fields, as a file has them."""
