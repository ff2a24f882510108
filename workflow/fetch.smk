# One rule per dataset: its files, byte for byte, from where its card says. A computed dataset has none.

from replimat.sources.store import ROOTS

DATA_FILES = {
    name: [f"{ROOTS[cards.dataset(name).data]}/{name}/{member.save_as}" for member in cards.dataset(name).source.members]
    for name in sorted({name for one in RUNS.values() for name in one.datasets})
}

for dataset in [name for name, files in DATA_FILES.items() if files]:

    rule:
        name:
            f"fetch_{dataset}"
        output:
            DATA_FILES[dataset],
        params:
            dataset=dataset,
        resources:
            network=1,
        shell:
            "replimat fetch {params.dataset}"
