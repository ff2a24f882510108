"""Where the bytes of a dataset come from, as its card says it: a package, a URL, a computation, other datasets."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Key = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]*$")]


class Card(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Member(Card):
    """One file taken out of an archive (or the file itself, when the source is a plain URL)."""

    path: str  # inside the archive, or relative to the mirror's root
    save_as: str  # inside data/<dataset>/
    sha256: Sha256
    bytes: int = Field(gt=0)

    @field_validator("save_as")
    @classmethod
    def _stays_inside(cls, save_as: str) -> str:
        """Letters, digits and a few signs alone: what looks like another name, or is a drive, is none of these."""
        parts = save_as.split("/")
        if not all(re.fullmatch(r"[A-Za-z0-9_.,+()=-]+", part) and part.strip(".") for part in parts):
            raise ValueError(
                "save_as must stay inside the dataset's folder: names of letters, digits and _.,+()=- between slashes"
            )
        return save_as


def _kept_apart(members: list[Member]) -> list[Member]:
    """Raise ValueError where two members would be one file; capitals are none on some file systems."""
    taken: dict[str, str] = {}
    for name in (member.save_as for member in members):
        if name.lower() in taken:
            raise ValueError(f"two members are saved as {taken[name.lower()]!r} and {name!r}, which is one file")
        taken[name.lower()] = name
    return members


Members = Annotated[list[Member], AfterValidator(_kept_apart)]
MEMBER_COLUMNS = ["path", "save_as", "bytes", "sha256"]


class RegistrySource(Card):
    """Files inside a published package: found by the package finder, checked, never executed."""

    kind: Literal["registry"]
    package: str
    version: str
    file: str
    sha256: Sha256
    bytes: int = Field(gt=0)
    members: Members = Field(min_length=1)


class UrlSource(Card):
    """A paper's own files by URL; taken from REPLIMAT_MIRROR first when that is set.

    Many members stand in a csv file beside the card (columns path, save_as, bytes, sha256), named by members_from.
    """

    kind: Literal["url"]
    url: str
    members_from: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+\.csv$")] | None = None
    members: Members = Field(min_length=1)


class StartGeometry(Card):
    """Where a trajectory starts, before it is relaxed: exactly one of these."""

    molecule: str | None = None  # name in ASE's collection of molecules
    dodecahedron: str | None = None  # element of the 20 atoms of a fullerene C20
    xyz: str | None = None  # a geometry written out in xyz format, angstrom

    @model_validator(mode="after")
    def _one_geometry(self):
        if len(self.model_fields_set) != 1:
            raise ValueError("a start geometry is exactly one of molecule, dodecahedron, xyz")
        return self


class MolecularDynamics(Card):
    """Langevin dynamics at constant temperature; after equilibration every `every`-th frame is kept."""

    method: Literal["GFN2-xTB"]
    start: StartGeometry
    temperature: float = Field(gt=0)  # K
    timestep: float = Field(gt=0, le=2)  # fs
    friction: float = Field(gt=0)  # 1/fs
    equilibration: int = Field(ge=0)  # steps
    every: int = Field(gt=0)  # steps between frames
    frames: int = Field(gt=0)
    seed: int = Field(ge=0)


class ComputedSource(Card):
    """Labels computed by a physics engine in the pipeline, when the dataset is loaded for the first time.

    Floating point differs between machines, so there is no fixed sha256 and nothing to fetch: settings, version of the
    engine and the reader's code identify the dataset, and the hash of what was computed goes with every run.
    """

    kind: Literal["computed"]
    engine: str
    version: str | None = None
    settings: MolecularDynamics | None = None
    parents: list[Key] = Field(default_factory=list)  # datasets of ours that the computation starts from
    members: Members = Field(default_factory=list)


class DerivedSource(Card):
    """Chosen from other datasets of ours, when it is loaded for the first time: nothing to fetch but these."""

    kind: Literal["derived"]
    parents: list[Key] = Field(min_length=1)
    members: Members = Field(default_factory=list, max_length=0)


Source = Annotated[RegistrySource | UrlSource | ComputedSource | DerivedSource, Field(discriminator="kind")]
