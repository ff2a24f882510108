"""How a run departs from the published protocol, in words for the report."""

from replimat import cards
from replimat.experiments.catalogue import Planned

COMPARED = ("epochs", "batch_size", "lr")


def full_protocol(planned: Planned) -> bool:
    """Whether the run is the paper's own: its data, its split sizes, its recipe."""
    return planned.scale == "paper" and planned.card.origin == "paper" and not reductions(planned)


def reductions(planned: Planned) -> list[str]:
    """Every difference to the paper's protocol that the cards know, as "what, ours instead of theirs"."""
    found = []
    ours, paper = planned.settings, planned.card.at("paper")
    if planned.card.origin != "paper":
        found.append(f"{planned.card.origin} data ({planned.card.dataset})")
    n_train = published_n_train(planned) or (paper.n_train if paper else None)
    trained = not (planned.card.weights or planned.card.predictions)
    if n_train and trained and ours.n_train != n_train:
        found.append(f"{ours.n_train:,} training rows instead of {n_train:,}")
    if paper and paper.note:
        found.append(paper.note)
    if planned.scale == "paper" or paper is None:
        return found
    for name in COMPARED:
        mine, theirs = getattr(ours, name), getattr(paper, name)
        if mine != theirs:
            found.append(f"{name.replace('_', ' ')} {mine} instead of {theirs}")
    for name in sorted(ours.model.keys() | paper.model.keys()):
        mine, theirs = ours.model.get(name, "default"), paper.model.get(name, "default")
        if mine != theirs:
            found.append(f"{name} {mine} instead of {theirs}")
    return found


def published_n_train(planned: Planned) -> int | None:
    """Training rows of the first claim the experiment answers to."""
    sizes = {claim.claim_id: claim.n_train for claim in cards.claims(planned.paper)}
    return next((sizes[claim] for claim in planned.card.claims if sizes.get(claim)), None)
