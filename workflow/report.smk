# All papers in one table, one summary figure and one page.


rule merge:
    input:
        expand(f"results/{SCALE}/papers/{{paper}}/comparison.csv", paper=PLAN),
    output:
        table=f"results/{SCALE}/comparison.csv",
        text=f"results/{SCALE}/comparison.md",
        summary=f"results/{SCALE}/summary.json",
    localrule: True
    shell:
        f"replimat compare --scale {SCALE}"


rule report:
    input:
        f"results/{SCALE}/comparison.csv",
        sources("reporting/*.py", "reporting/templates/*"),
    output:
        f"results/{SCALE}/report.html",
    localrule: True
    shell:
        f"replimat report --scale {SCALE}"
