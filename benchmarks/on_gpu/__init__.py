"""What `benchmarks/gpu.py` is made of: who is measured, on what, how, and what becomes of it.

plan.py       the shapes, the stages in order of importance, one `Task` for each row of the tables
driver.py     a process for each framework; budget, time limits, what was left out
journal.py    the JSON file, written anew after every row
worker.py     the other end: one task after the other, in a process of its own
card.py       the device, and how time is taken on it
inputs.py     rows made on the card, the same for everyone, and the float64 answer to them
measure.py    first the answer, then the times
ours.py       gpubp: the only file here that knows how gpubp is called
torch_peers.py, jax_peers.py    the peers
limits.py     the ceilings: copies, matrix products
checks.py     the tests marked gpu, and compute-sanitizer
targets.py, render.py           what was wanted, and the tables
"""
