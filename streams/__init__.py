"""How events move: the three stages, their state, the two runtimes, and the commands.

BLAS keeps to one thread here: our matrices are small, workers scale by processes, and spinning threads of a second core
slow down everything else. It must be said before NumPy is first imported.
"""

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
