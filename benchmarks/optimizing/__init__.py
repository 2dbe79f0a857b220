"""What `benchmarks/optimizers.py` is made of: tasks, counting, contenders, the match, the report."""
