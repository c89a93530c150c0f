"""A table of checks: whether a fit can be trusted."""

from probkit.fits.predict import typical_integrated
from probkit.fits.value import Fit, refuse_no_fit
from probkit.model.check import Report
from probkit.settings import with_all_digits


@with_all_digits
def diagnose(fitted: Fit) -> Report:
    """The checks of the fit's method and of its family.

    Args:
        fitted: a fit.

    Returns:
        A `Report`. Print it, test `report.ok`, or take one check by its name.

    Raises:
        ValueError: if the argument is not a fit, or if its method could not be restored
            from a file.
    """
    refuse_no_fit(fitted, "diagnose(fit)")
    if fitted.method is None:
        raise ValueError(
            "`diagnose`: the method of this fit could not be rebuilt from its file; "
            "`az.summary(fit.tree)` and `az.diagnose(fit.tree)` still work."
        )
    method, facts = fitted.method, fitted.facts
    checks = method.checks(fitted.tree, facts)
    given = typical_integrated(fitted)
    checks += method.checks_of_model(fitted.model, given, fitted.data, facts)
    title = f"{type(fitted.model).__name__} by {type(fitted.method).__name__}"
    return Report(title, checks)
