"""The scikit-learn door: `MLPClassifier` and `MLPRegressor`, to be imported in place of scikit-learn's own.

    from gpubp.sklearn import MLPClassifier  # was: from sklearn.neural_network import MLPClassifier

They have scikit-learn's parameters and attributes, minimise the same loss, and pass its estimator checks; every step
sees all rows. They are guests: `arguments` makes a `gpubp.job.Job` of the parameters, `rows` a data set of X,
`perceptron` trains, and the mathematics is where it always was.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("sklearn") is None:
    raise ImportError("gpubp.sklearn without scikit-learn; install it with pip install 'gpubp[sklearn]'")

from .classifier import MLPClassifier
from .regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
