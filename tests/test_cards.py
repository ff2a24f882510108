"""Cards and claims: the real ones hold together, and a broken one is refused with a line that names what is wrong."""

import csv
import re
from collections import Counter

import pytest
import yaml

from replimat import cards
from replimat.cards import CLAIM_COLUMNS
from replimat.errors import CardError, DataError
from replimat.units import convert

SYSTEMS = {
    "property": {
        "cgcnn", "schnet", "megnet", "gatgnn", "alignn", "m3gnet", "chgnet", "matformer", "potnet", "ewald",
    },
    "generation": {"edm", "cond_dfc_vae", "crystal_gan", "ftcp", "cdvae", "symat"},
    "characterisation": {
        "neutron_net", "xrd_vae", "lattice_net", "crystalmela", "multiphase", "deepstruc", "nmr_tensor",
    },
    "phonons": {"mlip_zuo", "mtp_2d", "phdos_e3nn", "vgnn"},
}  # fmt: skip
PAPERS = sorted(set().union(*SYSTEMS.values()))


# ------------------------------------------------------------- the real cards


def test_every_system_of_the_survey_has_a_card_in_its_family():
    assert cards.paper_keys() == PAPERS
    for family, keys in SYSTEMS.items():
        assert {key for key in PAPERS if cards.paper(key).family == family} == keys


@pytest.mark.parametrize("key", PAPERS)
def test_claims_are_complete_and_consistent(key):
    claims = cards.claims(key)
    for claim in claims:
        assert re.fullmatch(rf"{key}(/[a-z0-9][a-z0-9._-]*){{4,}}", claim.claim_id), claim.claim_id
        assert convert(1.0, claim.unit, claim.unit) == 1.0  # a known unit
        assert claim.value is not None or claim.qualifier, f"{claim.claim_id}: neither a number nor words"
        assert claim.source
    unreported = [claim.claim_id for claim in claims if claim.value is None]
    assert len(unreported) <= 1, unreported  # only the range DFT-against-experiment of CGCNN


def test_printed_digits_are_those_of_the_value():
    """Half a unit of the last printed digit enters every verdict: the csv must not have lost or added one."""
    for key in PAPERS:
        with open(cards.project_root() / "papers" / key / "claims.csv", newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                assert int(row["digits"]) == len(row["value"].partition(".")[2]), row["claim_id"]


def test_direction_follows_from_the_metric():
    directions = {(claim.metric, claim.direction) for key in PAPERS for claim in cards.claims(key)}
    assert not {metric for metric, count in Counter(metric for metric, _ in directions).items() if count > 1}
    expected = {"mae": "lower", "rmse": "lower", "auc": "higher", "r2": "higher", "ewt_0.02": "higher", "mad": "none"}
    assert expected.items() <= dict(directions).items()


def test_a_paper_without_numbers_of_its_own_says_so():
    for key in PAPERS:
        if not any(claim.role == "own" for claim in cards.claims(key)):
            card = cards.paper(key)
            assert any(said.startswith("No number of") for said in (card.not_attempted or "", *card.notes))


@pytest.mark.parametrize("key", PAPERS)
def test_compared_claims_are_the_paper_s_own(key):
    """A verdict is about the paper's own model: a rival's number is never judged; another paper's table only where it
    is about this very model, and such a number does not count.

    Released predictions are held against the number that was printed for that very file, whoever trained the model.
    """
    own = {claim.model for claim in cards.claims(key) if claim.role == "own"}
    about = lambda claim: any(model.startswith(claim.model) for model in own)  # noqa: E731
    roles = {claim.claim_id: "own" if about(claim) else claim.role for claim in cards.claims(key)}
    for name, experiment in cards.paper(key).experiments.items():
        allowed = {"own", "baseline", "context"} if experiment.predictions else {"own"}
        assert {roles[claim] for claims in experiment.claims_by_target.values() for claim in claims} <= allowed, name


def test_known_numbers_are_read_as_printed():
    claims = {claim.claim_id: claim for claim in cards.claims("cgcnn")}
    energy = claims["cgcnn/table-ii/mp/formation-energy/mae"]
    assert (energy.value, energy.digits, energy.unit, energy.n_train) == (0.039, 3, "eV/atom", 28046)
    poisson = claims["cgcnn/table-ii/mp/poisson-ratio/mae"]
    assert (poisson.value, poisson.digits, poisson.seen) == (0.03, 3, "recalled")


# ---------------------------------------------------------------- broken cards

CARD = {
    "key": "harmonic",
    "title": "Harmonic bonds for crystals",
    "authors": ["A. Author"],
    "year": 2020,
    "venue": "J. Ex. 1, 2",
    "family": "property",
    "summary": "Energies from bond lengths alone.",
    "experiments": {
        "mp-formation-energy": {
            "dataset": "mp",
            "target": "formation_energy",
            "origin": "paper",
            "claims": ["harmonic/table-1/mp/formation-energy/mae"],
        }
    },
}
CLAIM = {
    "claim_id": "harmonic/table-1/mp/formation-energy/mae",
    "role": "own",
    "table": "Table 1",
    "dataset": "MP",
    "target": "formation energy",
    "metric": "mae",
    "unit": "eV/atom",
    "model": "Harmonic",
    "value": "0.390",
    "digits": "3",
    "qualifier": "",
    "direction": "lower",
    "n_train": "100",
    "n_val": "",
    "n_test": "",
    "sizes": "",
    "source": "invented",
    "seen": "verbatim",
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Write a project of one paper; calling the fixture with other content writes it anew."""
    (tmp_path / "datasets").mkdir()
    folder = tmp_path / "papers" / "harmonic"
    folder.mkdir(parents=True)
    monkeypatch.setenv("REPLIMAT_ROOT", str(tmp_path))

    def write(card=CARD, claims=(CLAIM,), columns=CLAIM_COLUMNS):
        (folder / "card.yaml").write_text(card if isinstance(card, str) else yaml.safe_dump(card), encoding="utf-8")
        with open(folder / "claims.csv", "w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(claims)
        _forget()
        return folder

    yield write
    _forget()


def _forget():
    for reader in (cards.paper, cards.claims, cards.dataset):
        reader.cache_clear()


def _refused(read, *fragments: str):
    with pytest.raises(CardError) as caught:
        read()
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


def test_a_whole_project_is_read(project):
    project()
    assert cards.paper_keys() == ["harmonic"]
    assert cards.paper("harmonic").experiments["mp-formation-energy"].at("paper") is None
    (claim,) = cards.claims("harmonic")
    assert (claim.value, claim.digits, claim.n_train, claim.n_val) == (0.39, 3, 100, None)


def test_unknown_paper_lists_the_known_ones(project):
    project()
    _refused(lambda: cards.paper("anharmonic"), "'anharmonic'", "Known: harmonic")


def test_unknown_dataset_is_named(project):
    project()
    _refused(lambda: cards.dataset("mp"), "'mp'")


def test_no_project(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLIMAT_ROOT", str(tmp_path))
    _refused(cards.project_root, "REPLIMAT_ROOT")


@pytest.mark.parametrize(
    ("card", "fragments"),
    [
        (CARD | {"colour": "red"}, ["card.yaml", "colour"]),
        (CARD | {"year": "soon"}, ["year", "'soon'"]),
        (CARD | {"family": "poetry"}, ["family", "'poetry'"]),
        (CARD | {"key": "anharmonic"}, ["'anharmonic'", "'harmonic'"]),
        (CARD | {"not_attempted": "too hard"}, ["not_attempted"]),
        ({key: value for key, value in CARD.items() if key != "experiments"}, ["not_attempted"]),
        ({key: value for key, value in CARD.items() if key != "title"}, ["title"]),
        ("key: [harmonic", ["card.yaml", "YAML"]),
        ("- harmonic", ["card.yaml", "list"]),
        ("", ["card.yaml", "NoneType"]),
    ],
    ids=["unknown key", "type", "choice", "folder", "both", "neither", "missing", "yaml", "list", "empty"],
)
def test_malformed_card(project, card, fragments):
    project(card)
    _refused(lambda: cards.paper("harmonic"), *fragments)


def test_unknown_key_deep_inside_is_named_with_its_path(project):
    experiment = CARD["experiments"]["mp-formation-energy"] | {"smoke": {"n_trian": 64}}
    project(CARD | {"experiments": {"mp-formation-energy": experiment}})
    _refused(lambda: cards.paper("harmonic"), "experiments.mp-formation-energy.smoke.n_trian")


def test_card_that_names_a_missing_claim(project):
    project(claims=[])
    _refused(lambda: cards.paper("harmonic"), "mp-formation-energy", CLAIM["claim_id"])


def test_claim_id_twice(project):
    project(claims=[CLAIM, CLAIM])
    _refused(lambda: cards.claims("harmonic"), CLAIM["claim_id"], "twice")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("value", "0.39 eV"),
        ("value", "nan"),
        ("role", "rival"),
        ("digits", "-1"),
        ("n_train", "80%"),
        ("seen", "heard"),
    ],
)
def test_bad_claim_names_line_field_and_value(project, field, value):
    project(claims=[CLAIM, CLAIM | {"claim_id": "other", field: value}])
    _refused(lambda: cards.claims("harmonic"), "line 3", field, repr(value))


def test_claims_with_other_columns(project):
    project(columns=[*CLAIM_COLUMNS, "mood"])
    _refused(lambda: cards.claims("harmonic"), "mood")


def test_row_with_too_many_fields(project):
    with open(project() / "claims.csv", "a", encoding="utf-8") as stream:
        stream.write(",".join(CLAIM.values()) + ",and more\n")
    _refused(lambda: cards.claims("harmonic"), "line 3", "more")


def test_claims_that_are_not_text(project):
    (project() / "claims.csv").write_bytes(b"claim_id,\xff\xfe")
    _refused(lambda: cards.claims("harmonic"), "claims.csv", "UTF-8")


def test_claims_file_missing(project):
    (project() / "claims.csv").unlink()
    _refused(lambda: cards.claims("harmonic"), "claims.csv", "header line")


# ----------------------------------------------------------------------- units


@pytest.mark.parametrize(
    ("value", "source", "target", "expected"),
    [
        (1.0, "kcal/mol", "meV", 43.3641),
        (1.0, "hartree", "eV", 27.211386),
        (1.0, "eV", "kJ/mol", 96.48533),
        (37.4, "meV/angstrom", "eV/angstrom", 0.0374),
        (1.0, "hartree/bohr", "eV/angstrom", 51.42207),
        (1.0, "bohr^3", "angstrom^3", 0.1481847),
        (1.0, "eV/angstrom^3", "GPa", 160.21766),
        (10.0, "kbar", "GPa", 1.0),
        (1.0, "THz", "cm^-1", 33.35641),
        (1.0, "e*angstrom", "debye", 4.803205),
        (1.0, "cal/mol/K", "J/mol/K", 4.184),
        (2.96, "%", "1", 0.0296),
        (1.5, "h", "s", 5400.0),
    ],
)
def test_units_convert(value, source, target, expected):
    assert convert(value, source, target) == pytest.approx(expected, rel=1e-6)
    assert convert(expected, target, source) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(
    ("source", "target"), [("eV", "eV/atom"), ("GPa", "log10(GPa)"), ("eV", "mev"), ("parsec", "eV")]
)
def test_units_that_do_not_fit(source, target):
    with pytest.raises(DataError) as caught:
        convert(1.0, source, target)
    assert source in str(caught.value) and "\n" not in str(caught.value)
