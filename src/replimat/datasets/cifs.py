"""CIF texts by pymatgen, without what it mends in silence: it drops a site of negative occupancy, turns a cell of a
negative edge inside out, and reads a symmetry operation that is none as one that moves everything to a plane.
"""

import warnings

from replimat.datasets.amcsd import operation
from replimat.datasets.rows import FULLEST

OPERATIONS = ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz")


def parsed_cif(text: str) -> tuple:
    """The pymatgen structure of the first block of a CIF, and the block's fields. Raises ValueError or what pymatgen
    raises.
    """
    from pymatgen.io.cif import CifParser

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parser = CifParser.from_str(text)
        fields = next(iter(parser.as_dict().values()))
        _require_plain(fields)
        return parser.parse_structures(primitive=False)[0], fields


def _require_plain(fields: dict) -> None:
    """Raise ValueError where a field is one that pymatgen would mend."""
    for name in ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma"):
        if not _number(fields[f"_cell_{name}"]) > 0:
            raise ValueError(f"_cell_{name} is {fields[f'_cell_{name}']}")
    for share in fields.get("_atom_site_occupancy", ()):
        if not 0 < _number(share) <= FULLEST:
            raise ValueError(f"a site of occupancy {share}, expected above 0 and at most {FULLEST:g}")
    for name in OPERATIONS:
        operations = fields.get(name, ())
        for text in [operations] if isinstance(operations, str) else operations:
            operation(text.strip("'\""))


def _number(text: str) -> float:
    """A number of a CIF, which may have its uncertainty in brackets. Raises ValueError."""
    return float(text.partition("(")[0])
