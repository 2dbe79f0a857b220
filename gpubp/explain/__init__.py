"""One example, forward and backward, with every number kept: what z, a and δ of each unit are made of.

The numbers are those of `gpubp.backprop`: its `forward` and `backward_from` are called on one row, in float64, with a
buffer for every z, a and δ. What is added here are the sums, term by term, and words.

- `record`: the record of an example, its sums and their terms.
- `rows`: an example out of a run's data, or as a user types it.
- `seed`: the small network of the course's "Backpropagation Intuition", with numbers.
- `slopes`: each δ beside the finite difference of the cost in its z.
- `fold`: wide layers reduced to the units that matter, the rest summed.
- `plain`: all of it as plain values, for JSON.
- `text`: for the terminal, in tables; `term_by_term`: one unit as the course writes it; `written`: a formula as a line
  of mathematics; `numerals`: how numbers are written.
- `drawing`, `page`: as a picture, as a page to explore; `notation`, `sums`: symbols and sums as these write them;
  `layout`, `shapes`, `svg`: where everything of the picture lies, what it is made of, its text as SVG.
"""

from .record import Edge, Explanation, Names, Sum, Term, explain

__all__ = ["Edge", "Explanation", "Names", "Sum", "Term", "explain"]
