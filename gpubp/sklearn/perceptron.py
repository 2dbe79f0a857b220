"""What classifier and regressor share: from X, y and the parameters to a training, and from Θ to outputs.

Θ lives in `coefs_` and `intercepts_`, laid out as scikit-learn lays them out: `coefs_[l - 1]` is W^(l) transposed,
(s_l, s_{l+1}), and `intercepts_[l - 1]` is b^(l). Nothing else is kept of a training but numbers and names, so a fitted
estimator pickles, and what is written into `coefs_` is what predicts.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from .arguments import as_value_errors, job_of, seed_of, warn_of_no_effect
from .notes import Notes

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..data.rows import Rows
    from ..data.targets import TargetSpec
    from ..inference import Model
    from ..network import Network


class Perceptron(BaseEstimator):
    """The estimators' common part; see `MLPClassifier` and `MLPRegressor`."""

    hidden_layer_sizes: Any
    activation: str
    solver: str
    alpha: float
    random_state: Any
    verbose: bool
    warm_start: bool
    early_stopping: bool
    validation_fraction: float
    backend: str
    _numbers: bool  # whether y must be numbers

    @abstractmethod
    def _meaning(self, y: Any, known: bool, *, some: bool = False) -> tuple[np.ndarray, str, TargetSpec]:
        """y as numbers, the cost, and what the outputs stand for.

        Args:
            known: whether the classes are those of the fit before (a warm start), and not y's own.
            some: whether y may then lack some of them.
        """

    @abstractmethod
    def _spec(self) -> tuple[str, TargetSpec]:
        """The cost and what the outputs stand for, of a fitted estimator."""

    def _class_weight(self) -> Any:
        """The class weights, as a job has them."""
        return None

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Minimise the loss on all rows of X. A fit that fails or is interrupted leaves the estimator as it was.

        Args:
            X: (n_samples, n_features) numbers: an array, a frame, a sparse matrix (made dense by blocks); or the path
                of an HDF5 file, a pattern or several of them, or a dataset of h5py's: then rows stay on the disk beyond
                what `memory` holds.
            y: (n_samples,) or (n_samples, n_outputs). For a file also the name of a dataset in it, or None to find it
                by its usual names.
            sample_weight: (n_samples,), not negative; a row of weight 2 counts as the row twice. For a file also the
                name of a dataset; one with a usual name is found.

        Raises:
            ValueError: a parameter or data that cannot be used, in one line; a loss that is not finite.
            BackendError: no such device.
        """
        warm = bool(self.warm_start and hasattr(self, "coefs_"))
        warn_of_no_effect(self)
        with self._as_it_was(), as_value_errors():
            self._seed = seed_of(self.random_state)
            dataset = self._data(X, y, sample_weight, reset=not warm)
            with closing(dataset):
                target, cost, spec = self._meaning(dataset.target, warm)
                self._train(replace(dataset, target=target), cost, spec, warm)
        return self

    @contextmanager
    def _as_it_was(self) -> Iterator[None]:
        """Inside, what raises takes back every attribute: else old coefs_ would stand beside new classes_."""
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    def loss_and_gradient(
        self, X: Any, y: Any = None, sample_weight: Any = None
    ) -> tuple[float, list[np.ndarray], list[np.ndarray]]:
        """The loss at the present `coefs_` and `intercepts_`, and its exact gradient over all rows.

        Args:
            X, y, sample_weight: as for `fit`.

        Returns:
            The loss with its α term, and its slopes in the shapes of `coefs_` and of `intercepts_`, float64.
        """
        from ..prepare import prepare

        check_is_fitted(self, "coefs_")
        with as_value_errors(), closing(self._data(X, y, sample_weight, reset=False)) as dataset:
            target, cost, spec = self._meaning(dataset.target, True, some=True)
            job = job_of(self, cost=cost, dtype=dataset.source.dtype, class_weight=self._class_weight())
            dataset = replace(dataset, target=target)
            with closing(prepare(job, dataset, scaling=self.scaling_, targets=spec)) as ready:
                network, gradient = ready.network, np.zeros(ready.network.P)
                loss = ready.objective.value_and_gradient(self._Theta(network), gradient)
                return (float(loss), *_coefs_and_intercepts(network, gradient))

    def _answers(self, X: Any, y: Any, weights: Any) -> tuple[Any, Any]:
        """y and the weights that predictions are compared with: of a file, read from it."""
        from . import rows

        if not rows.is_stored(X):
            return y, weights
        with as_value_errors(), closing(rows.stored(X, y, weights, labelled=True, split="test")) as dataset:
            return dataset.target, dataset.weights

    def _data(self, X: Any, y: Any, weights: Any, *, reset: bool) -> Dataset:
        """X, y and weights as a data set, checked as scikit-learn checks them; y is not yet encoded."""
        from . import rows

        if rows.is_stored(X):
            dataset = rows.stored(X, y, weights, labelled=True)
            self._check_features(dataset, reset=reset)
            return dataset
        X, y = validate_data(
            self, X, y, accept_sparse="csr", dtype="numeric", multi_output=True, y_numeric=self._numbers, reset=reset
        )
        if y.ndim == 2 and y.shape[1] == 1:
            from sklearn.utils import column_or_1d

            y = column_or_1d(y, warn=True)
        if weights is not None:
            weights = rows.as_weights(weights, X.shape[0])
        return rows.in_memory(X, y, weights)

    def _check_features(self, dataset: Dataset, *, reset: bool) -> None:
        """Number and names of a file's columns: noted, or compared with those of the fit."""
        n, names = dataset.source.features, dataset.feature_names
        if reset:
            self.n_features_in_ = n
            if names:
                self.feature_names_in_ = np.array(names, dtype=object)
            elif hasattr(self, "feature_names_in_"):
                del self.feature_names_in_
            return
        had = getattr(self, "feature_names_in_", None)
        other = names and had is not None and list(names) != list(had)
        if n == self.n_features_in_ and not other:
            return
        dataset.close()
        if other and n == self.n_features_in_:
            raise ValueError(f"{dataset.path}: the feature names should match those that were passed during fit")
        raise ValueError(
            f"X has {n} features, but {type(self).__name__} is expecting {self.n_features_in_} features as input"
        )

    def _train(self, dataset: Dataset, cost: str, spec: TargetSpec, warm: bool) -> None:
        from ..prepare import prepare
        from ..stopping import Watch
        from ..training import fit

        job = job_of(self, cost=cost, dtype=dataset.source.dtype, class_weight=self._class_weight())
        roles = (lambda m: self._roles(dataset, spec)) if self.early_stopping else None
        scaling = self.scaling_ if warm else None
        with closing(prepare(job, dataset, scaling=scaling, targets=spec, roles=roles)) as ready:
            network = ready.network
            begin = self._Theta(network) if warm else network.initial_Theta(job.seed)
            watch, notes = Watch(job.stopping), Notes(self, ready)
            ending, state = fit(
                ready.objective, ready.optimizer, begin, iterations=job.iterations, callbacks=[notes],
                climb=ready.at if job.climb else None, watch=watch,
            )  # fmt: skip
            assert state is not None  # nobody asked to stop
            if ending.kind == "failed":
                raise ValueError(
                    f"{ending.reason}; the input data may contain large values: scale them, or take scale='standard'"
                )
            if ending.kind in ("limit", "stalled"):
                name = "max_iter" if ending.kind == "limit" else "tol"
                said = f"{ending.reason}; raise {name}, or scale the data: scale='standard'"
                warnings.warn(said, ConvergenceWarning, stacklevel=4)
            Theta = np.array(watch.Theta_on_host(state))
            self.coefs_, self.intercepts_ = _coefs_and_intercepts(network, Theta)
            self.scaling_ = ready.rows.scaling
            self.precision_ = ready.objective.precision
            self.ending_ = ending.reason
            self.n_layers_, self.n_outputs_ = network.L, network.K
            self.out_activation_ = {"softmax": "softmax", "logistic": "logistic"}.get(cost, "identity")
            self.n_iter_ = state.iteration
            self.loss_ = float(state.best[1] if watch.Theta is None else watch.J)
            counted = ready.rows.m if ready.rows.weights is None else int(np.count_nonzero(ready.rows.weights))
            self.best_validation_score_ = notes.score(Theta) if self.early_stopping else None
            self.t_ = (self.t_ if warm else 0) + state.evaluations * counted
        self.loss_curve_ = [*(self.loss_curve_ if warm else ()), *notes.losses]
        early = bool(self.early_stopping)
        before = (getattr(self, "validation_scores_", None) or []) if warm else []
        self.validation_scores_ = [*before, *notes.scores] if early else None
        self.best_loss_ = None if early else min([self.loss_, *self.loss_curve_])

    def _roles(self, dataset: Dataset, spec: TargetSpec) -> np.ndarray:
        """1 for the rows to train on, −1 for those held out: split as scikit-learn's MLP does it."""
        from sklearn.model_selection import train_test_split

        y = dataset.target
        stratify = y if spec.kind in ("classes", "binary") else None
        rows = np.arange(dataset.source.m)
        _, held = train_test_split(
            rows, test_size=self.validation_fraction, random_state=self._seed % 2**32, stratify=stratify
        )
        if len(held) < 2:
            raise ValueError(
                f"the validation set of {len(held)} rows is too small: increase 'validation_fraction' or the data"
            )
        role = np.ones(len(rows), np.int8)
        role[held] = -1
        return role

    def _network(self) -> Network:
        from ..network import Network
        from .arguments import ACTIVATIONS

        cost, _ = self._spec()
        sizes = (self.coefs_[0].shape[0], *(W.shape[1] for W in self.coefs_))
        return Network(tuple(map(int, sizes)), ACTIVATIONS.get(self.activation, self.activation), cost)

    def _Theta(self, network: Network) -> np.ndarray:
        """The flat Θ of `coefs_` and `intercepts_`."""
        pairs = list(zip(self.coefs_, self.intercepts_, strict=True))
        shapes = [(W.shape[1], W.shape[0] + 1) for W, _ in pairs]
        wanted = [(n, k + 1) for k, n in zip(network.sizes[:-1], network.sizes[1:], strict=True)]
        if shapes != wanted:
            raise ValueError(
                f"coefs_ of the network {'-'.join(str(W.shape[0]) for W, _ in pairs)}-{pairs[-1][0].shape[1]} beside "
                f"{'-'.join(map(str, network.sizes))}; a warm start goes on with the same layers"
            )
        return network.pack([np.concatenate([np.reshape(b, (-1, 1)), np.transpose(W)], axis=1) for W, b in pairs])

    def _model(self) -> Model:
        from ..inference import Model

        network = self._network()
        return Model(network, self._Theta(network), self.scaling_, self._spec()[1], float(self.alpha))

    def _outputs(self, X: Any) -> np.ndarray:
        """h_Θ(x) of each row, (n_samples, n_outputs) float64."""
        from ..backend import for_forward
        from ..inference import outputs
        from ..precision import EXACT
        from . import rows

        check_is_fitted(self, "coefs_")
        with as_value_errors():
            if rows.is_stored(X):
                dataset = rows.stored(X, labelled=False, split="test")
                self._check_features(dataset, reset=False)
            else:
                dataset = rows.in_memory(validate_data(self, X, accept_sparse="csr", dtype="numeric", reset=False))
            with closing(dataset):
                precision = self.precision_ if self.precision_ in EXACT else "fp32"
                backend = for_forward(self.backend)
                chunks = outputs(
                    self._model(), _unlabelled(dataset, self.scaling_), backend=backend, precision=precision
                )
                return np.concatenate([chunk.h for chunk in chunks])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.required = True
        return tags


def _unlabelled(dataset: Dataset, scaling: Any) -> Rows:
    from ..data.rows import Rows

    source = dataset.source
    kept = getattr(source, "array", None)
    return Rows(source, np.empty((0, source.features), source.dtype) if kept is None else kept, scaling)


def _coefs_and_intercepts(network: Network, flat: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """A flat vector in scikit-learn's shapes: copies, C-contiguous."""
    W, b = network.views(flat)
    return [np.array(one.T, order="C") for one in W[1:]], [one[0].copy() for one in b[1:]]
