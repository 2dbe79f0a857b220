"""`MLPClassifier`: scikit-learn's, trained by gpubp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from .perceptron import Perceptron

if TYPE_CHECKING:
    from ..data.targets import TargetSpec

_LEAST, _MOST = np.finfo(np.float64).tiny, 1 - np.finfo(np.float64).epsneg


class MLPClassifier(ClassifierMixin, Perceptron):
    """A dense network for classes, in place of `sklearn.neural_network.MLPClassifier`.

    It minimises scikit-learn's loss, the log loss with (α/2Σw)·‖W‖² added (biases left out), by exact gradients over
    all rows. Three classes or more have a softmax, two one logistic output, 0/1 labels one logistic output each.

    Args:
        hidden_layer_sizes: units of each hidden layer; ``()`` is multinomial logistic regression.
        activation: "identity", "logistic", "tanh", "relu", or another of `gpubp.activation`.
        solver: "lbfgs", "adam" (Adam on the exact gradient, with `learning_rate_init`, `beta_1`, `beta_2`, `epsilon`),
            or another of `gpubp.optimizers`. "klbfgs" needs the fewest passes, half to a third; "lbfgs" is the default
            because with it a row of weight 2 is that row twice, to the last digits, where klbfgs draws a sample of
            rows. "sgd" is refused.
        alpha: α, which gpubp writes λ.
        max_iter, max_fun: the most iterations, and evaluations of the loss; a fit that ends there warns.
        tol: a fit has converged where no slope of the loss is larger: max|∇J| ≤ tol, for every solver.
        early_stopping: hold out `validation_fraction` of the rows (stratified), stop after `n_iter_no_change`
            iterations without a validation loss lower by `tol`, and keep the Θ that had the lowest.
        warm_start: begin at the Θ of the fit before.
        random_state: of the first Θ and the rows held out; a whole number is gpubp's seed itself.
        verbose: print the loss of each iteration.
        batch_size, shuffle, learning_rate, power_t, momentum, nesterovs_momentum: of scikit-learn's mini-batches.
            They are taken, change nothing, and a `UserWarning` says so where they are not at their defaults.
        class_weight: "balanced", or a dict of weights by label; they multiply `sample_weight`.
        solver_options: a dict of further options of the solver, such as ``{"history": 50}``.
        backend: "auto" (a GPU where one works), "cpu" or "gpu".
        precision: of the passes, see `gpubp.precision`; Θ and all decisions are float64. "auto" is fp32 where float32
            holds every value of X's type (float32, bytes, short integers), else fp64.
        scale: what is done to X first: "none", "standard", "255" or "auto". `coefs_` are those of the scaled X.
        memory: of rows of a file that are kept, such as "1GB"; the others are read again in each pass.
        threads: the most threads of the CPU; by default all cores, and one where ``n_jobs`` has others at work beside
            it. No bit depends on it.

    Attributes:
        classes_: the labels, in ascending order.
        coefs_, intercepts_: the weights (s_l, s_{l+1}) and biases (s_{l+1},) of each layer, float64. What is written
            into them is what predicts.
        loss_: the loss J at them, with its α term.
        loss_curve_: J after each iteration; a warm start adds to it.
        best_loss_: the lowest of them; None under early stopping.
        validation_scores_, best_validation_score_: accuracy on the rows held out after each iteration, and at the
            `coefs_` that were kept; None without early stopping.
        n_iter_: iterations of the last fit.
        t_: rows seen, in all evaluations of the loss.
        ending_: why the fit ended, in words with numbers.
        precision_: of the last passes; it is finer than asked for where that one had nothing better to find.
        scaling_: a `gpubp.data.scaling.Scaling`.
        n_features_in_, feature_names_in_, n_layers_, n_outputs_, out_activation_: as scikit-learn has them.

    Examples:
        >>> from gpubp.sklearn import MLPClassifier
        >>> X, y = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], ["even", "odd", "odd", "even"]
        >>> net = MLPClassifier((4,), "tanh", random_state=1).fit(X, y)
        >>> [str(label) for label in net.predict(X)]
        ['even', 'odd', 'odd', 'even']
    """

    _numbers = False  # whether y must be numbers

    def __init__(
        self,
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
        class_weight: Any = None,
        solver_options: Any = None,
        backend: str = "auto",
        precision: str = "auto",
        scale: str = "none",
        memory: Any = None,
        threads: int | None = None,
    ) -> None:
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
        self.class_weight = class_weight
        self.solver_options = solver_options
        self.backend = backend
        self.precision = precision
        self.scale = scale
        self.memory = memory
        self.threads = threads

    def predict(self, X: Any) -> np.ndarray:
        """The class of each row, (n_samples,), or 0/1 labels (n_samples, n_classes)."""
        h = self._outputs(X)
        if self._several:
            return (h > 0.5).astype(int)
        return self.classes_[(h[:, 0] > 0.5).astype(np.intp) if h.shape[1] == 1 else h.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class, (n_samples, n_classes), in the order of `classes_`.

        None is 0 or 1: what has rounded to one of them is the float64 next to it (for 0, the smallest normal one).
        """
        return np.clip(self._probabilities(X), _LEAST, _MOST)

    def _probabilities(self, X: Any) -> np.ndarray:
        h = self._outputs(X)
        if self._several or h.shape[1] > 1:
            return h
        if len(self.classes_) == 1:
            return np.ones((len(h), 1))
        return np.concatenate([1 - h, h], axis=1)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithm of `predict_proba`."""
        return np.log(self.predict_proba(X))

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """The share of right answers; of several labels, of rows where all are right.

        Args:
            X, y, sample_weight: as for `fit`; of a file the test rows where it has any.
        """
        y, sample_weight = self._answers(X, y, sample_weight)
        return super().score(X, y, sample_weight)

    def _meaning(self, y: Any, known: bool, *, some: bool = False) -> tuple[np.ndarray, str, TargetSpec]:
        check_classification_targets(y)
        y = y.toarray() if hasattr(y, "toarray") else np.asarray(y)
        kind = type_of_target(y, input_name="y")
        if kind == "multiclass-multioutput":
            raise ValueError("several columns of classes in y; wanted one column, or 0/1 labels; fit one per column")
        several = kind == "multilabel-indicator"
        classes = np.arange(y.shape[1]) if several else np.unique(y)
        if known:
            if some and several == self._several and np.isin(classes, self.classes_).all():
                classes = self.classes_
            if several != self._several or not np.array_equal(classes, self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                    f"Previously got {self.classes_}, `y` has {classes}"
                )
        self.classes_, self._several = classes, several
        cost, spec = self._spec()
        return (y.astype(np.uint8) if several else np.searchsorted(classes, y)), cost, spec

    def _spec(self) -> tuple[str, TargetSpec]:
        from ..data.targets import TargetSpec

        K = len(self.classes_)
        if self._several:
            return "logistic", TargetSpec("multilabel", None, K)
        if K <= 2:  # one class alone is the first of two
            return "logistic", TargetSpec("binary", (0, 1), 1)
        return "softmax", TargetSpec("classes", tuple(range(K)), K)

    def _class_weight(self) -> Any:
        asked = self.class_weight
        if asked is None or (asked == "balanced" and len(self.classes_) == 1):
            return None
        if not isinstance(asked, dict):
            return asked
        code = {label: str(at) for at, label in enumerate(self.classes_.tolist())}
        if unknown := [label for label in asked if label not in code]:
            raise ValueError(f"a class weight for {unknown[0]!r}, which y has not; wanted labels of {list(code)}")
        return {code[label]: weight for label, weight in asked.items()}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
