"""Θ out of a file that may come from anywhere, whoever wrote it.

- `stores`: named arrays in a file: NumPy, MATLAB (5 and 7.3), Octave text, HDF5, JSON.
- `tensors`: the same of safetensors and of PyTorch's own files.
- `conventions`: which of the names are weights: Ng's Theta1, Theta2, …, scikit-learn's coefs_0, intercepts_0, …, or
  the Linear layers of a PyTorch module.
- `description`: what an export of gpubp says of the model besides Θ: scaling, classes, what fills a gap.
- `reading`: a file, a checkpoint or a run folder as matrices or as a model.
- `beginning`: the Θ that a training begins with, and what follows from it.

A file is believed nothing: what it says of its own size is compared with a bound before anything is unpacked, nothing
pickled is loaded, and what is wrong is said in one line.
"""

from .beginning import begin_with
from .reading import SUFFIXES, Found, is_run, model_of, read

__all__ = ["SUFFIXES", "Found", "begin_with", "is_run", "model_of", "read"]
