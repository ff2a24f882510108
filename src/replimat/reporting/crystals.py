"""The first ten structures a generator made, drawn so that a person can judge them by eye."""

from pathlib import Path

import numpy as np

from replimat.records import Run
from replimat.reporting.style import BLACK, canvas
from replimat.representations.conversion import as_atoms, unpacked

SHOWN, COLUMNS = 10, 5
VIEW = "-80x,15y,5z"  # nearly along an axis, turned a little so that rows of atoms do not hide each other
RADIUS = 0.45  # of an atom drawn, in covalent radii
LISTED = 32  # elements in the legend
FAILED = "not valid"  # how captions begin where nothing passed and the first samples are drawn all the same


def draw(path: Path, run: Run, arrays: dict[str, np.ndarray]) -> None:
    """arrays: numbers [N], positions [N, 3], cells [n, 3, 3], offsets [n + 1], captions [n] (text under each)."""
    from ase.data import chemical_symbols, covalent_radii
    from ase.data.colors import jmol_colors
    from ase.visualize.plot import plot_atoms

    each = as_atoms(unpacked(arrays))[:SHOWN]
    captions = arrays["captions"].astype(str) if "captions" in arrays else [""] * len(each)
    rows = -(-len(each) // COLUMNS)
    with canvas(path, (2.5 * COLUMNS, 2.75 * rows + 0.5), nrows=rows, ncols=COLUMNS, squeeze=False) as (figure, grid):
        for axes in grid.flat:
            axes.set_axis_off()
        for number, (axes, atoms, caption) in enumerate(zip(grid.flat, each, captions, strict=False), start=1):
            radii = RADIUS * covalent_radii[atoms.numbers]
            plot_atoms(atoms, axes, rotation=VIEW, radii=radii, show_unit_cell=2 * int(atoms.pbc.any()))
            said = f"{number}  {atoms.get_chemical_formula(empirical=bool(atoms.pbc.any()))}"
            axes.set_title(f"{said}\n{caption}".rstrip(), fontsize=9, color=BLACK, loc="center", fontweight="normal")
        elements = np.unique(np.concatenate([atoms.numbers for atoms in each]))[:LISTED]
        look = {"marker": "o", "linestyle": "none", "markersize": 9, "markeredgecolor": BLACK}
        marks = [grid[0][0].plot([], [], color=jmol_colors[z], label=chemical_symbols[z], **look)[0] for z in elements]
        figure.legend(handles=marks, loc="outside lower left", ncols=min(len(marks), 16), columnspacing=1.0)
        passed = "" if any(caption.startswith(FAILED) for caption in captions) else " that pass the checks"
        title = f"{run.paper} · {run.label}: the first {len(each)}{passed}"
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11.5)
