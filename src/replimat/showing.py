"""Cards as a person reads them in a terminal."""

from rich.console import Console
from rich.table import Table

from replimat import cards
from replimat.cards import Claim, ComputedSource, DatasetCard, DerivedSource, PaperCard, Source


def show_paper(console: Console, card: PaperCard, claims: tuple[Claim, ...]) -> None:
    """A paper: what it is, its constants, experiments and own claims; rivals and context are counted."""
    console.print(f"[bold]{card.title}[/bold] ({card.key})", highlight=False)
    authors = ", ".join(card.authors[:4]) + (" and others" if len(card.authors) > 4 else "")
    identifier = f"doi:{card.doi}" if card.doi else f"arXiv:{card.arxiv}" if card.arxiv else "no identifier"
    console.print(f"{authors}; {card.venue} ({card.year}), {identifier}\n\n{card.summary}\n", highlight=False)
    if card.not_attempted:
        console.print(f"[bold]Not attempted:[/bold] {card.not_attempted}\n")
    if card.constants:
        console.print(
            _table(
                "Constants",
                ("name", "paper", "author's code", "used here", "why"),
                [
                    (f"{c.name} ({c.unit})" if c.unit else c.name, c.paper, c.author_code, c.used, c.why)
                    for c in card.constants
                ],
            )
        )
    if card.experiments:
        console.print(
            _table(
                "Experiments",
                ("name", "dataset", "target", "data", "scales", "claims"),
                [
                    (
                        name,
                        e.dataset,
                        "\n".join(e.claims_by_target),
                        e.origin,
                        ", ".join(s for s in ("smoke", "laptop", "paper") if e.at(s)),
                        "\n".join(claim for claims in e.claims_by_target.values() for claim in claims),
                    )
                    for name, e in card.experiments.items()
                ],
            )
        )
    own = [claim for claim in claims if claim.role == "own"]
    console.print(
        _table(
            "Own claims (greyed: recalled, never counted)",
            ("claim", "reported", "unit", "train / test", "seen"),
            [
                (c.claim_id, _reported(c), c.unit, f"{c.n_train or c.sizes or '?'} / {c.n_test or '?'}", c.seen)
                for c in own
            ],
            dim=[c.seen == "recalled" for c in own],
        )
    )
    others = len(claims) - len(own)
    console.print(
        f"{others} further numbers (rival models and other papers' tables) are in papers/{card.key}/claims.csv."
    )
    for note in card.notes:
        console.print(f"- {note}", highlight=False)


def show_dataset(console: Console, card: DatasetCard) -> None:
    """A dataset: where it comes from, its targets with units and ranges, and what to beware of."""
    console.print(f"[bold]{card.title}[/bold] ({card.name})\n{card.summary}\n", highlight=False)
    console.print(f"Licence: {card.licence}\nCitation: {card.citation}\nRows: {card.rows}", highlight=False)
    if card.left_out:
        console.print(f"Left out: {card.left_out}", highlight=False)
    if card.targets:
        console.print(
            _table(
                "Targets",
                ("name", "unit", "range", "values", "description"),
                [
                    (name, t.unit, f"{t.range[0]:g} to {t.range[1]:g}" if t.range else "", t.count or "", t.description)
                    for name, t in card.targets.items()
                ],
            )
        )
    console.print(_origin(card.source))
    for note in card.notes:
        console.print(f"- {note}", highlight=False)


def _origin(source: Source) -> Table:
    """The files of a source, or the settings of a computation."""
    if isinstance(source, ComputedSource) and not source.members:
        settings = source.settings.model_dump(exclude_none=True) if source.settings else {"parents": source.parents}
        return _table(f"Computed by {source.engine} {source.version}", ("setting", "value"), list(settings.items()))
    if isinstance(source, DerivedSource):
        return _table("Made from", ("dataset", "title"), [(name, cards.dataset(name).title) for name in source.parents])
    return _table("Files", ("file", "bytes", "sha256"), [(m.save_as, f"{m.bytes:,}", m.sha256) for m in source.members])


def _reported(claim: Claim) -> str:
    value = "" if claim.value is None else f"{claim.value:.{claim.digits}f}"
    return f"{claim.qualifier} {value}".strip()


def _table(title: str, columns: tuple[str, ...], rows: list[tuple], dim: list[bool] | None = None) -> Table:
    table = Table(title=title, header_style="bold", title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for number, row in enumerate(rows):
        cells = ["" if cell is None else str(cell) for cell in row]
        table.add_row(*cells, style="dim" if dim and dim[number] else None)
    return table
