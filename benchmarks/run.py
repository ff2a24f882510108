"""All benchmarks, one after another, each in its own process.

python benchmarks/run.py [--author-code PATH]
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = {
    "neighbour_list.py": [],
    "cgcnn_step.py": sys.argv[1:],
    "schnet_step.py": [],
    "megnet_step.py": [],
    "alignn_step.py": [],
    "qm9_load.py": [],
    "snap_step.py": [],
    "gap_step.py": [],
    "mtp_step.py": [],
    "nnp_step.py": [],
    "powder_pattern.py": [],
    "crystal_metrics.py": [],
}


def main() -> int:
    codes = [subprocess.run([sys.executable, HERE / name, *options]).returncode for name, options in SCRIPTS.items()]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
