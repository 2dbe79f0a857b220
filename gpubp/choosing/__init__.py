"""Choosing a model, as the sixth week of Andrew Ng's course teaches it: validation curves, learning curves, a verdict.

`sweep` trains the same rows for each λ (and each network) and compares costs on rows that were held out;
`learning_curve` trains on more and more rows. Both say in words what the numbers mean (`verdict`), and with which
`gpubp train` to go on (`next_step`). The parts: `roles`, which row is for what; `point`, one training and what it
reached; `record`, the folder that an interrupted one goes on from; `plot`, the picture.

Rows for testing are no part of this: they are not opened.
"""

from __future__ import annotations
