"""One example, forward and backward, with every number kept: what z, a and δ of each unit are made of.

The numbers are those of `gpubp.backprop`: its `forward` and `backward_from` are called on one row, in float64, with a
buffer for every z, a and δ. What is added here are the sums, term by term, and words.

- `record`: the record of an example, its sums and their terms.
- `rows`: an example out of a run's data, or as a user types it.
- `seed`: the small network of the course's "Backpropagation Intuition", with numbers.
- `slopes`: each δ beside the finite difference of the cost in its z.
- `fold`: wide layers reduced to the units that matter, the rest summed.
- `plain`: all of it as plain values, for JSON.
- `notation`: how numbers and Ng's symbols are written; `written`: a formula as a line of mathematics.
- `sums`: one unit written out as the course does it, for every medium.
- `text`: for the terminal, tables and units; `page`: as a page to explore; `drawing`: as a picture: `layout` says where
  everything of it lies, `shapes` what it is made of, `svg` writes it.
"""

from .record import Edge, Explanation, Names, Sum, Term, explain

__all__ = ["Edge", "Explanation", "Names", "Sum", "Term", "explain"]
