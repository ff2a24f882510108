# Each claim of a paper beside what was measured, with a verdict. Needs no torch, so it is cheap.


def paper_runs(wildcards):
    return [f"{one.folder}/run.json" for one in PLAN[wildcards.paper]]


rule compare:
    input:
        paper_runs,
        "papers/{paper}/card.yaml",
        "papers/{paper}/claims.csv",
        sources("verdicts.py", "audit.py", "margins.py", "records.py", "reporting/*.py"),
    output:
        table=f"results/{SCALE}/papers/{{paper}}/comparison.csv",
        text=f"results/{SCALE}/papers/{{paper}}/comparison.md",
        metrics=f"results/{SCALE}/papers/{{paper}}/metrics.json",
    localrule: True  # a few seconds; a queue would cost more
    log:
        f"runs/logs/compare-{SCALE}-{{paper}}.log",
    shell:
        f"replimat compare {{wildcards.paper}} --scale {SCALE} > {{log}} 2>&1"
