"""Sums and products of kernels."""

from typing import Any

import equinox as eqx

from probkit.validate import several, short


class AbstractKernel(eqx.Module):
    """A covariance function. `a + b` and `a * b` are kernels again."""

    def __add__(self, other: Any) -> "Sum":
        _refuse_no_kernel(other, "+")
        return Sum((*parts(self, Sum), *parts(other, Sum)))

    def __mul__(self, other: Any) -> "Product":
        _refuse_no_kernel(other, "*")
        return Product((*parts(self, Product), *parts(other, Product)))


def parts(
    kernel: AbstractKernel, kind: "type[Sum] | type[Product]"
) -> tuple[AbstractKernel, ...]:
    return kernel.parts if isinstance(kernel, kind) else (kernel,)


def _refuse_no_kernel(value: Any, sign: str) -> None:
    if not isinstance(value, AbstractKernel):
        raise ValueError(
            f"`kernel {sign} {short(value)}`: it takes two kernels; each term of a sum has "
            "an sd of its own already."
        )


class Sum(AbstractKernel):
    """$k_1 + k_2 + …$, written `k1 + k2`."""

    parts: tuple[AbstractKernel, ...] = eqx.field(
        converter=several("Sum", AbstractKernel, "kernel")
    )


class Product(AbstractKernel):
    """$k_1 k_2 …$, written `k1 * k2`."""

    parts: tuple[AbstractKernel, ...] = eqx.field(
        converter=several("Product", AbstractKernel, "kernel")
    )
