"""How J curves: products with its Gauss–Newton matrix and that matrix, over all rows, leaf by leaf as in a pass.

    B(Θ) = 1/Σw Σ_t w_t (∂z_t/∂Θ)ᵀ H_t (∂z_t/∂Θ)  +  λ/Σw on the weights, 0 on the biases

with z = z^(L) and H how a row's cost curves in it (`gpubp.cost`). B is positive semidefinite whatever Θ is.

`Curvature.product` is one walk over the rows: forward, the derivative of all z along v (`forward_along`), H times that
in place of δ^(L), and backpropagation from there (Schraudolph, Fast curvature matrix-vector products, Neural
Computation 14 (2002) 1723–1738, algorithm G). `Curvature.matrix` is JᵀJ in blocks of rows: with H = R Rᵀ the
derivatives of Rᵀz by all parameters, one output after the other, each row by itself, and their product.

All of it is a plain composition of the backend's operations. Products add up in the type of the pass as gradients do;
the matrix does in float64, from derivatives in the type of the pass, so that it is positive semidefinite to rounding
of float64 even then. The bits do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from . import backprop
from .backend import Backend
from .backprop import Block
from .communicator import Communicator
from .data.rows import Rows
from .errors import UsageError
from .factors import FactorSample, full
from .feed import Feed, fold, unfold
from .formula import cast, plus, times
from .network import Layers, Network
from .walk import Owner, Stretch, Walk, spread

MOST_PARAMETERS = 4096  # of a matrix: 128 MB, of which a sum over rows needs several
DERIVATIVES = 1 << 20  # numbers of a block of rows × p, so that they stay near the cores
FEWEST_ROWS = 512  # of such a block: adding p² sums must be little beside making them
STRETCHES = 32  # of a sample of rows, at least: spread over the data, which may be in some order
MATRICES = 512 << 20  # bytes of the matrices of all leaves together
_REAL = np.dtype(np.float64)


def forward_along(backend: Backend, network: Network, Theta: Layers, V: Layers, block: Block) -> None:
    """The derivative of z^(L) along V, left in ``block.delta[L]``; a and z are there.

    Rz^(l+1) = Ra^(l) (W^(l))ᵀ + a^(l) (V^(l))ᵀ + v_b^(l);  Ra^(l) = g′(z^(l)) ∘ Rz^(l);  Ra^(1) = 0
    (Pearlmutter, Fast exact multiplication by the Hessian, Neural Computation 6 (1994) 147–160).
    """
    R = block.delta  # as δ, Rz of a layer is needed until that of the next one is there
    for l in range(1, network.L):
        backend.gemm(block.a[l], V.W[l], out=R[l + 1], transpose="nt")
        if l > 1:
            backend.apply(network.g.slope, R[l], *backprop.slope_at(network, Theta, block, l), out=R[l])
            backend.gemm(R[l], Theta.W[l], out=R[l + 1], transpose="nt", beta=1)
        backend.apply(plus, R[l + 1], V.b[l], out=R[l + 1])


class Layer(NamedTuple):
    """Where the parameters of one layer lie, as `network.Place`; and whether its factors A and G are full matrices."""

    weights: slice
    biases: slice
    outputs: int
    inputs: int
    full: tuple[bool, bool]


class Factors(NamedTuple):
    """The factors A and G of each layer, see `gpubp.factors`; and what they cost in passes."""

    A: list[np.ndarray]
    G: list[np.ndarray]
    passes: float


class Curvature:
    """The `optimizers.curvature.Curvature` of an objective. Buffers are made at the first use.

    Args:
        network, rows, lambda_, backend, communicator: those of the objective.
        feed: brings its rows.
        dtype: of the pass.
        vectors: where vectors live, None for the host's.
        leaves, owners, block_rows: those of the objective.
        seed: of the sample and the signs that factors are made of.

    Attributes:
        layers: where the layers' parameters lie.
        factored: whether the cost tells enough for `factors`.
        decay: λ/Σw.
        operations: arithmetic operations of a pass for J and ∇J: 2m(3n − n₁), n the weights, n₁ those of the first
            layer.
        most_parameters: of a `matrix`.
        product_passes, matrix_passes: what `product` and `matrix` cost, in passes for J and ∇J: operations of the
            matrix products against those of a pass.
    """

    most_parameters = MOST_PARAMETERS

    def __init__(
        self, network: Network, rows: Rows, lambda_: float, backend: Backend, feed: Feed, dtype: np.dtype,
        communicator: Communicator, vectors: Any, leaves: int, owners: int, block_rows: int,
        seed: int = 0,
    ) -> None:  # fmt: skip
        self.network, self.rows, self.backend, self.feed, self.dtype = network, rows, backend, feed, dtype
        self.vectors, self.leaves, self.owners, self.block_rows = vectors, leaves, owners, block_rows
        self.communicator, self.seed = communicator, seed
        self.factored = network.J.root is not None
        self.decay = lambda_ / rows.weight_sum
        self.weight_sum = rows.weight_sum / rows.unit
        n = sum(i * o for i, o in pairwise(network.sizes))
        first, p, K = network.sizes[0] * network.sizes[1], network.parameters, network.K
        one_pass = 2 * (3 * n - first)
        self.operations = float(rows.m * one_pass)
        whole = [(full(at.inputs, self.operations), full(at.outputs, self.operations)) for at in network.places]
        self.layers = [Layer(*at, both) for at, both in zip(network.places, whole, strict=True)]
        self.product_passes = 2 * (5 * n - 2 * first) / one_pass
        # per output: errors, derivatives, and their products with each other, of which NumPy takes one triangle
        square = p * (p + 1) if backend.kind == "cpu" else 2 * p * p
        self.matrix_passes = (2 * n + K * (2 * (n - first) + p + square)) / one_pass
        self._flats: list[tuple[np.ndarray, Any, Any] | None] = [None, None]
        self._products: Walk | None = None
        self._matrices: Walk | None = None
        self._sampled: tuple[Any, Any] = (None, None)
        self._sample: FactorSample | None = None

    def factors(self, Theta: Any, draw: int) -> Factors:
        """The Kronecker factors at Θ from a sample of the rows, with the random signs of that draw.

        Args:
            Theta: (P,) float64, where the objective's vectors live or NumPy's.

        Raises:
            UsageError: a cost that does not tell how it curves.
        """
        self._told(self.network.J.root)
        if self._sample is None:
            self._sample = FactorSample(
                self.network, self.rows, self.backend, self.dtype, [layer.full for layer in self.layers],
                communicator=self.communicator, seed=self.seed, leaves=self.leaves, threads=self.owners,
            )  # fmt: skip
        A, G, operations = self._sample.factors(self._on_host(Theta), draw)
        return Factors(A, G, operations / self.operations)

    def product(self, Theta: Any, v: Any, out: Any) -> None:
        """out ← B(Θ) v over all rows; all three (P,) float64, where the objective's vectors live or NumPy's.

        Raises:
            UsageError: a cost that does not tell how it curves.
        """
        curvature = self._told(self.network.J.curvature)
        backend, network = self.backend, self.network
        if self._products is None:
            self._products = self.walk((network.P,), self.dtype, self.leaves, self.block_rows)
        v_host = self._on_host(v)
        layers, along = self._uploaded(Theta, 0), self._uploaded(v, 1)

        def add(owner: Owner, block: Block, node: Any) -> None:
            forward_along(backend, network, layers, along, block)
            last = block.delta[network.L]
            backend.apply(curvature, block.a[network.L], last, block.w, out=last)
            backprop.backward_from(backend, network, layers, block, network.views(node), beta=1)

        with backend.guard():
            result = self._products.sum(layers, add)
            if self.feed.folds:
                unfold(network, self.rows.scaling, result)
            result /= self.weight_sum
            if self.decay:
                for at in self.layers:
                    result[at.weights] += self.decay * v_host[at.weights]
            if isinstance(out, np.ndarray) and type(out) is np.ndarray:
                out[...] = result
            else:
                self.vectors.put(result, out)

    def matrix(self, Theta: Any) -> np.ndarray:
        """B(Θ) over all rows, (p, p) float64 in NumPy's memory: parameters in the order of `layers`, without gaps.

        Raises:
            UsageError: more parameters than `MOST_PARAMETERS`, or a cost that does not tell how it curves.
        """
        self._check_size()
        if self._matrices is None:
            p = self.network.parameters
            most = max(1, MATRICES // (8 * p * p))
            leaves = min(self.leaves, 1 << (most.bit_length() - 1))
            self._matrices = self._matrix_walk(leaves, self.block_rows)
        return self._matrix(Theta, self._matrices, self.weight_sum, None)

    def sampled_matrix(self, Theta: Any, rows: int, draw: int) -> tuple[np.ndarray, float]:
        """`matrix` of about so many rows that a draw chooses, weighted as they are; and what it cost in passes.

        The rows are short stretches all over the data. Where there are no more rows than that, or those drawn have no
        weight, it is the matrix of all.

        Raises:
            UsageError: as `matrix`.
        """
        self._check_size()
        m, p = self.rows.m, self.network.parameters
        most = max(FEWEST_ROWS, DERIVATIVES // p)
        leaves = 1 << max(0, (-(-rows // most) - 1).bit_length())
        count = max(leaves, STRETCHES)
        each = -(-rows // count)
        if count * each >= m:
            return self.matrix(Theta), self.matrix_passes
        stretches = spread(m, count, each, self.seed, draw)
        w = self.rows.weights
        weight_sum = count * each if w is None else sum(float(w[u:v].sum()) for u, v in stretches) / self.rows.unit
        if weight_sum == 0:
            return self.matrix(Theta), self.matrix_passes
        if self._sampled[0] != (leaves, each):
            self._let_go("_sampled")
            self._sampled = (leaves, each), self._matrix_walk(leaves, count // leaves * each)
        n = count // leaves
        B = self._matrix(Theta, self._sampled[1], weight_sum, lambda leaf: stretches[leaf * n : (leaf + 1) * n])
        return B, self.matrix_passes * count * each / m

    def _check_size(self) -> None:
        if (p := self.network.parameters) > self.most_parameters:
            raise UsageError(
                f"the {p:,} × {p:,} matrix of {p:,} parameters", wanted=f"{self.most_parameters:,} parameters or fewer",
                do="take --optimizer klbfgs or gn, which need no matrix",
            )  # fmt: skip

    def _matrix_walk(self, leaves: int, block_rows: int) -> Walk:
        p = self.network.parameters
        rows = min(block_rows, max(FEWEST_ROWS, DERIVATIVES // p))
        return self.walk((p, p), _REAL, leaves, rows)

    def _matrix(
        self, Theta: Any, walk: Walk, weight_sum: float, sample: Callable[[int], list[Stretch]] | None
    ) -> np.ndarray:
        root = self._told(self.network.J.root)
        backend, network, p = self.backend, self.network, self.network.parameters
        layers = self._uploaded(Theta, 0)
        with backend.guard():
            unit = backend.upload(np.eye(network.K, dtype=self.dtype))
            directions = [unit[k : k + 1] for k in range(network.K)]

        def add(owner: Owner, block: Block, node: Any) -> None:
            derivatives = owner.own.get("derivatives")
            if derivatives is None:
                derivatives = owner.own["derivatives"] = Derivatives(backend, network, self.dtype, owner.work.rows)
            last = block.delta[network.L]
            for direction in directions:
                backend.apply(root, block.a[network.L], direction, block.w, out=last)
                derivatives.square(layers, block, node)

        with backend.guard():
            B = walk.sum(layers, add, sample)
        B /= weight_sum
        self._unfold(B)
        diagonal = B.reshape(-1)[:: p + 1]
        for weights, _ in self._compact():
            diagonal[weights] += self.decay
        return B

    def walk(self, shape: tuple[int, ...], node: np.dtype, leaves: int, block_rows: int) -> Walk:
        """A walk over the objective's rows that sums arrays of that shape and type."""
        return Walk(
            self.backend, self.network, self.rows, self.feed, self.dtype, self.communicator,
            shape, node, leaves, self.owners, block_rows,
        )  # fmt: skip

    def close(self) -> None:
        """End its threads, let go of its buffers and the rows."""
        for name in ("_products", "_matrices", "_sampled", "_sample"):
            self._let_go(name)
        del self.feed

    def _let_go(self, name: str) -> None:
        held = getattr(self, name)
        walk = held[1] if isinstance(held, tuple) else held
        if walk is not None:
            walk.close()
        setattr(self, name, (None, None) if isinstance(held, tuple) else None)

    def _told(self, formula: Any) -> Any:
        if formula is None:
            raise UsageError(
                f"the cost {self.network.cost}, which does not tell how it curves",
                wanted="one with `curvature` and `root`", do="take --optimizer lbfgs, which needs neither",
            )  # fmt: skip
        return formula

    def _on_host(self, v: Any) -> np.ndarray:
        return v if type(v) is np.ndarray else self.vectors.to_host(v)

    def _uploaded(self, v: Any, which: int) -> Layers:
        """A vector as the pass takes it: for rows as they are stored, in its type. In the same place each time."""
        host = self._on_host(v)
        if self.feed.folds:  # linear in Θ, so directions are folded like it
            host = fold(self.network, self.rows.scaling, host, np.empty(self.network.P))
        kept: tuple[np.ndarray, Any, Any] = self._flats[which] or (np.zeros(self.network.P, self.dtype), None, None)
        flat, there, layers = kept
        np.copyto(flat, host, casting="same_kind")
        with self.backend.guard():
            if (now := self.backend.upload(flat)) is not there:
                layers = self.network.views(now)
        self._flats[which] = flat, now, layers
        return layers

    def _compact(self) -> list[tuple[slice, slice]]:
        """Where the weights and biases of each layer are without gaps."""
        found, at = [], 0
        for place in self.layers:
            n = place.outputs * place.inputs
            found.append((slice(at, at + n), slice(at + n, at + n + place.outputs)))
            at += n + place.outputs
        return found

    def _unfold(self, B: np.ndarray) -> None:
        """`feed.unfold` on both sides of a matrix."""
        scaling, first = self.rows.scaling, self.layers[0]
        if not self.feed.folds:
            return
        weights, biases = self._compact()[0]
        for M in (B, B.T):
            W = M[weights].reshape(first.outputs, first.inputs, -1)  # a copy where M is the transpose
            if scaling.mean is not None:
                W = W - M[biases][:, None] * scaling.mean[:, None]
            if scaling.scale is not None:
                W = W / scaling.scale[:, None]
            M[weights] = W.reshape(first.outputs * first.inputs, -1)


class Derivatives:
    """Of each row of a block, the derivatives of one number by all parameters: (rows, p) float64, parameters in order.

    δ^(l+1) is that number's derivative by z^(l+1), so they are the products δ_j a_i: those of W^(l) by columns, of the
    layer's units or of its inputs, whichever are fewer.
    """

    def __init__(self, backend: Backend, network: Network, dtype: np.dtype, rows: int) -> None:
        self._backend, self._network = backend, network
        self._own = backend.empty((rows * network.parameters,), _REAL)
        self._narrow = dtype != _REAL
        widest = max(network.sizes)
        # the two factors of a layer in float64, where the pass is narrower
        self._factors = [backend.empty((rows * widest if self._narrow else 0,), _REAL) for _ in range(2)]
        self._made: dict[Any, Any] = {}

    def square(self, Theta: Layers, block: Block, M: Any) -> None:
        """M += Σ over the block's rows of their derivatives' products with each other, from its δ^(L)."""
        backend, network = self._backend, self._network
        rows = block.w.shape[0]
        J = self._views(rows)

        def fill(l: int) -> None:
            e, a = self._wide(block.delta[l + 1], 0), self._wide(block.a[l], 1)
            by_unit, biases = J[l]
            n = network.sizes[l]
            if n <= network.sizes[l - 1]:
                for j, part in enumerate(by_unit):
                    backend.apply(times, self._column(e, j), a, out=part)
            else:
                for i, part in enumerate(by_unit):
                    backend.apply(times, e, self._column(a, i), out=part)
            backend.apply(cast, e, out=biases)

        backprop.errors(backend, network, Theta, block, fill)
        backend.gemm(J[0], J[0], out=M, transpose="tn", beta=1)

    def _wide(self, array: Any, which: int) -> Any:
        if not self._narrow:
            return array
        rows, columns = array.shape
        key = "wide", which, rows, columns
        if key not in self._made:
            self._made[key] = self._factors[which][: rows * columns].reshape(rows, columns)
        self._backend.apply(cast, array, out=self._made[key])
        return self._made[key]

    def _column(self, array: Any, j: int) -> Any:
        """Column j; of the same array the same view, since a backend remembers what it did with one."""
        key = id(array), j
        found = self._made.get(key)
        if found is None or found[0] is not array:
            found = self._made[key] = array, array[:, j : j + 1]
        return found[1]

    def _views(self, rows: int) -> list[Any]:
        """(rows, p), and by l the columns of W^(l), by unit or by input, and of b^(l)."""
        if rows in self._made:
            return self._made[rows]
        sizes, p = self._network.sizes, self._network.parameters
        whole = self._own[: rows * p].reshape(rows, p)
        views, at = [whole], 0
        for k, n in pairwise(sizes):
            end = at + n * k
            by_unit = [whole[:, at + j * k : at + (j + 1) * k] for j in range(n)]
            by_input = [whole[:, at + i : end : k] for i in range(k)]
            views.append((by_unit if n <= k else by_input, whole[:, end : end + n]))
            at = end + n
        self._made[rows] = views
        return views
