"""Runs a script again with another python3 where the one at hand lacks what it needs."""

import importlib.util
import os
import subprocess
import sys

TRIED = "SQ_PYTHON_TRIED"


def need(*modules):
    """Returns if all modules can be imported here; else continues in another interpreter, or ends with one line."""
    missing = [m for m in modules if importlib.util.find_spec(m) is None]
    if not missing:
        return
    if not os.environ.get(TRIED):
        for other in ("/usr/bin/python3", "/usr/local/bin/python3", "/opt/local/bin/python3"):
            test = [other, "-c", "import " + ", ".join(modules)]
            if os.access(other, os.X_OK) and subprocess.run(test, stderr=subprocess.DEVNULL, check=False).returncode == 0:
                os.environ[TRIED] = "1"
                os.execv(other, [other] + sys.argv)
    sys.exit(f"error: {os.path.basename(sys.argv[0])} needs the Python packages {', '.join(modules)}; {', '.join(missing)} "
             f"not found by {sys.executable} nor by another python3 (Debian: python3-h5py python3-matplotlib)")
