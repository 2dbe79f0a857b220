"""What `benchmarks/ranks.py` is made of.

A team is the processes of one contender, started by mpiexec (`member` is what each of them does) or, for PyTorch, one
by one (`peer`). `team` is the driver's end. Rank 0 is told in lines of JSON what to do and answers in such lines; a
team that waits uses no core, so others can be timed meanwhile.
"""
