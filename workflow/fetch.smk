# One rule per dataset: its files, byte for byte, from where its card says. A computed dataset has none; of many files
# the last one stands for all, so that the log stays readable: `replimat fetch` brings them in order, and checks every one.

from replimat.sources.store import ROOTS

MANY = 50


def data_files(name):
    card = cards.dataset(name)
    members = [f"{ROOTS[card.data]}/{name}/{member.save_as}" for member in card.source.members]
    return members if len(members) < MANY else members[-1:]


DATA_FILES = {name: data_files(name) for name in sorted({name for one in RUNS.values() for name in one.datasets})}

for dataset in [name for name, files in DATA_FILES.items() if files]:

    rule:
        name:
            f"fetch_{dataset}"
        output:
            DATA_FILES[dataset],
        params:
            dataset=dataset,
        localrule: True  # compute nodes of clusters often have no network
        shell:
            "replimat fetch {params.dataset}"
