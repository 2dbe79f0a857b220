"""`MLPRegressor`: scikit-learn's, trained by gpubp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import RegressorMixin

from .perceptron import Perceptron

if TYPE_CHECKING:
    from ..data.targets import TargetSpec


class MLPRegressor(RegressorMixin, Perceptron):
    """A dense network for real targets, in place of `sklearn.neural_network.MLPRegressor`.

    It minimises ½ Σ_k (h_k − y_k)², the mean over rows, with (α/2Σw)·‖W‖² added (biases left out). With one output that
    is scikit-learn's loss. With K outputs it is the function whose gradient scikit-learn follows, while the first term
    of the loss that scikit-learn reports is divided by K.

    Args:
        loss: "squared_error".

    The other parameters and the attributes are those of `gpubp.sklearn.MLPClassifier`, without classes and their
    weights; the scores of early stopping are R².

    Examples:
        >>> from gpubp.sklearn import MLPRegressor
        >>> line = MLPRegressor(hidden_layer_sizes=(), alpha=0, tol=1e-9, random_state=0)
        >>> line = line.fit([[0.0], [1.0], [2.0]], [1, 3, 5])
        >>> round(float(line.predict([[10.0]])[0]), 6)
        21.0
    """

    _numbers = True  # whether y must be numbers

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "lbfgs",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        solver_options: Any = None,
        backend: str = "auto",
        precision: str = "auto",
        scale: str = "none",
        memory: Any = None,
        threads: int | None = None,
    ) -> None:
        self.loss = loss
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.solver_options = solver_options
        self.backend = backend
        self.precision = precision
        self.scale = scale
        self.memory = memory
        self.threads = threads

    def predict(self, X: Any) -> np.ndarray:
        """The predictions, (n_samples,) or (n_samples, n_outputs)."""
        h = self._outputs(X)
        return h[:, 0] if h.shape[1] == 1 else h

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """R², the mean over outputs.

        Args:
            X, y, sample_weight: as for `fit`; of a file the test rows where it has any.
        """
        y, sample_weight = self._answers(X, y, sample_weight)
        return super().score(X, y, sample_weight)

    def _meaning(self, y: Any, known: bool, *, some: bool = False) -> tuple[np.ndarray, str, TargetSpec]:
        from ..data.targets import TargetSpec

        if self.loss != "squared_error":
            raise ValueError(f"loss {self.loss!r}; wanted 'squared_error', the one that there is here")
        y = np.asarray(y)
        if y.dtype.kind not in "buif":
            raise ValueError(f"y of type {y.dtype}; wanted numbers")
        return y, "squares", TargetSpec("real", None, 1 if y.ndim == 1 else y.shape[1])

    def _spec(self) -> tuple[str, TargetSpec]:
        from ..data.targets import TargetSpec

        return "squares", TargetSpec("real", None, int(self.intercepts_[-1].shape[0]))
