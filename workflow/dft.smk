# The last check of a generated crystal: first principles. Not part of `all`; needs GPAW, or the image dft:
#
#   snakemake --cores 2 dft --config candidate=results/laptop/papers/cdvae/crystals/mp-20/01-MgO.cif
#   snakemake --cores 2 dft --config candidate="one.cif,another.cif" relax=true
#   make sif VARIANT=dft && snakemake --sdm apptainer --cores 2 dft --config candidate=one.cif

CHECKS = {}  # name -> CIF file
if config.get("candidate"):
    from replimat.experiments.candidates import name_of

    CHECKS = {name_of(Path(path)): path for path in str(config["candidate"]).split(",")}

RELAX = "--relax" if str(config.get("relax", "")).lower() in ("true", "1", "yes") else ""


def checks(wildcards):
    if not CHECKS:
        raise ValueError("dft checks the CIF files you name: snakemake --cores 2 dft --config candidate=FILE.cif")
    return [f"results/{SCALE}/dft/{name}.json" for name in CHECKS]


rule dft:
    input:
        checks,


rule dft_candidate:
    input:
        lambda wildcards: CHECKS[wildcards.candidate],
    output:
        f"results/{SCALE}/dft/{{candidate}}.json",
    params:
        relax=RELAX,
    threads: 16  # or as many as `--cores` allows
    container:
        config.get("dft_container", "replimat-dft.sif")
    shell:
        f"replimat dft {{input:q}} --scale {SCALE} {{params.relax}} --processes {{threads}}"
