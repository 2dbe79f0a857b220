"""What a GPU computes, as CUDA text and as plans of launches: testable without a GPU; `backend.cupy` runs it on one."""
