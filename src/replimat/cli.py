"""The command line: `replimat --help` lists what it does, `replimat COMMAND --help` teaches one command.

Heavy packages are imported inside the commands, so that help, lists and comparisons start at once.
"""

import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from replimat import cards, files
from replimat.errors import IntegrityError, ReplimatError, Stopped

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Re-run the experiments of 27 AI-for-materials papers and judge every number they report.\n\n"
    "The whole suite: `snakemake --cores all` (or `dvc repro`). The commands below are its steps, one at a time.",
)

Paper = Annotated[str, typer.Argument(help="Key of a paper, as in `replimat list` (cgcnn, schnet, ...).")]
ExperimentName = Annotated[str, typer.Argument(help="Name of an experiment, as in `replimat show PAPER`.")]
Scale = Annotated[str, typer.Option(help="smoke (seconds), laptop (minutes), paper (the published protocol).")]
Data = Annotated[str, typer.Option(help="embedded (package registries only) or paper (the papers' own files too).")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


@app.command("list")
def list_papers() -> None:
    """All papers: their family, experiments, claims and status."""
    table = Table(title="Papers", header_style="bold")
    for column in ("key", "year", "family", "title", "experiments", "own claims", "status"):
        table.add_column(column, overflow="fold")
    for key in cards.paper_keys():
        card = cards.paper(key)
        own = sum(claim.role == "own" for claim in cards.claims(key))
        scored = "predictions scored" if card.experiments else "not attempted"
        status = scored if card.not_attempted else "runs"
        table.add_row(key, str(card.year), card.family, card.title, str(len(card.experiments)), str(own), status)
    console = _console()
    console.print(table)
    console.print(
        f"{len(cards.paper_keys())} papers, {len(cards.dataset_names())} datasets. `replimat show KEY` shows one."
    )


@app.command()
def show(name: Annotated[str, typer.Argument(help="Key of a paper or name of a dataset.")]) -> None:
    """One card: a paper with its constants, experiments and claims, or a dataset with its targets and source."""
    from replimat.showing import show_dataset, show_paper

    if name in cards.dataset_names():
        show_dataset(_console(), cards.dataset(name))
    else:
        show_paper(_console(), cards.paper(name), cards.claims(name))


@app.command()
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="Datasets; none means all that the default suite needs.")
    ] = None,
    data: Data = "embedded",
) -> None:
    """Fetch datasets into data/ (or data-paper/), byte for byte, each file checked against its sha256."""
    from replimat.sources import store

    wanted = names or needed_datasets(data)
    for name in wanted:
        print(f"{name}: {store.fetch(name) or 'nothing to fetch, it is computed when it is first used'}")
    if not names:
        store.write_manifest(wanted)


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Datasets; none means all that are in data/.")] = None,
) -> None:
    """Check every file of data/ against its card, and what DVC's cache holds of them against data.dvc.

    Whatever is damaged is named and moved to .quarantine/, with the command that brings it back; exit code 1.

    DVC trusts its cache: a damaged object in it goes into data/ and to remotes, and `dvc status` finds nothing. So run
    this before `dvc push` and after `dvc pull`; docs/remotes.md says more.
    """
    from replimat.sources import store

    faults = []
    for check in (*(partial(_verify_data, name) for name in names or store.present()), partial(_verify_cache, names)):
        try:
            check()
        except IntegrityError as fault:  # the next may have its own
            faults.append(str(fault))
    if faults:
        raise IntegrityError("\n".join(faults))


@app.command()
def prepare(paper: Paper, experiment: ExperimentName, scale: Scale = "laptop") -> None:
    """Make the prepared file of an experiment: graphs, targets, split and baselines."""
    from replimat.experiments.catalogue import plan_one
    from replimat.experiments.prepare import prepare as prepare_file

    planned = plan_one(paper, experiment, scale)
    if planned.prepared is None:
        print(f"{paper}/{experiment} scores released predictions: there is nothing to prepare")
    else:
        print(prepare_file(planned.experiment))


@app.command()
def fit(
    paper: Paper,
    experiments: Annotated[list[str], typer.Argument(help="One or more experiments, as in `replimat show PAPER`.")],
    scale: Scale = "laptop",
    device: Device = "auto",
    seeds: Annotated[int, typer.Option(help="How many seeds; 0: as many as the card says.")] = 0,
    threads: Annotated[int, typer.Option(help="Processor threads; 0 leaves it to torch.")] = 0,
    deterministic: Annotated[
        bool, typer.Option(help="Same weights again on the same machine, or faster kernels.")
    ] = True,
    devices: Annotated[
        int, typer.Option(help="GPUs, or with --device cpu processes, that share every batch of a training.")
    ] = 1,
) -> None:
    """Train an experiment with all its seeds, predict the test rows and write run.json. Continues where it was
    killed. Several experiments run one after another, in one process.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    for experiment in experiments:
        run = _run(paper, experiment, scale, device, threads, deterministic, seeds, devices)
        with files.alone(run.folder / files.LOCK):
            _summarise(run.fit())


@app.command()
def evaluate(
    paper: Paper, experiment: ExperimentName, scale: Scale = "laptop", device: Device = "auto", threads: int = 0
) -> None:
    """Score the stored weights of an experiment again, without training."""
    run = _run(paper, experiment, scale, device, threads)
    with files.alone(run.folder / files.LOCK):
        _summarise(run.evaluate())


@app.command()
def compare(
    paper: Annotated[str | None, typer.Argument(help="Key of a paper; none merges the tables of all papers.")] = None,
    scale: Scale = "laptop",
) -> None:
    """Put each claim of a paper beside what was measured, with a verdict; without a paper, merge all into one table."""
    from replimat.reporting import comparison

    root = cards.project_root()
    if paper:
        cards.paper(paper)
        comparison.compare_paper(paper, scale, root / "runs", root / "results")
    else:
        comparison.merge(scale, root / "results")


@app.command()
def report(scale: Scale = "laptop") -> None:
    """Draw the summary figure and write report.html from the merged comparison."""
    from replimat.reporting import page

    root = cards.project_root()
    print(page.write_report(scale, root / "runs", root / "results"))


@app.command()
def dft(
    candidate: Annotated[Path, typer.Argument(help="A CIF file, as in results/<scale>/papers/<paper>/crystals/.")],
    scale: Scale = "laptop",
    relax: Annotated[bool, typer.Option(help="Also relax atoms and cell; takes some ten times as long.")] = False,
    processes: Annotated[int, typer.Option(help="Processes of the engine, by mpiexec.")] = 1,
) -> None:
    """Check a generated crystal by first principles: energy, formation energy, gap, forces, pressure, by GPAW with PBE
    (apt install gpaw gpaw-data; or the image dft). Writes results/<scale>/dft/; continues where it was killed.
    """
    from replimat.experiments.candidates import check_candidate

    record = check_candidate(candidate, scale, relax=relax, processes=processes, say=partial(print, flush=True))
    print(cards.project_root() / "results" / scale / "dft" / f"{record['name']}.json")


def needed_datasets(data: str = "embedded") -> list[str]:
    """Datasets and weights that the suite's experiments need, at any scale."""
    from replimat.experiments.catalogue import plan

    return sorted(
        {
            name
            for scale in cards.SCALES
            for planned in plan(scale, data).values()
            for one in planned
            for name in one.datasets
        }
    )


def _stop(number: int, _) -> None:
    """What SIGTERM does, which a scheduler sends some seconds before it kills, and ctrl-C. Nothing needs saving: every
    file is whole, and a training has its last checkpoint.
    """
    signal.signal(number, signal.SIG_IGN)
    number = signal.Signals(number)
    raise Stopped(f"stopped by {number.name}; the same command continues", number)


def _verify_data(name: str) -> None:
    from replimat.sources import store

    store.verify(name)
    print(f"{name}: every file is as its card says")


def _verify_cache(names: list[str] | None) -> None:
    from replimat.sources.dvc_cache import BRING_BACK, verify_cache

    if not (cached := verify_cache(names or ())):
        return
    print(f"DVC's cache: {cached.objects} objects of data/ are as data.dvc says")
    if cached.absent:
        others = f" and {len(cached.absent) - 5} more" if len(cached.absent) > 5 else ""
        print(f"DVC's cache lacks {', '.join(cached.absent[:5])}{others}; {BRING_BACK} brings them")


def _run(
    paper: str,
    experiment: str,
    scale: str,
    device: str,
    threads: int,
    deterministic: bool = True,
    seeds: int = 0,
    devices: int = 1,
):
    if threads:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # before torch is imported
    from replimat.experiments.base import Learned
    from replimat.experiments.catalogue import plan_one

    planned = plan_one(paper, experiment, scale)
    if planned.prepared is None:
        from replimat.experiments.rescoring import Rescoring

        return Rescoring(planned)
    if isinstance(planned.experiment, Learned):
        from replimat.experiments.learning import Learning

        return Learning(planned, device, deterministic, seeds)
    from replimat.experiments.run import Run

    return Run(planned, device, deterministic, seeds, devices)


def _summarise(record: dict) -> None:
    """One line for every target of a run."""
    from replimat.verdicts import BASELINES

    for target, part in ({record["target"]: record} | record["parts"]).items():
        metric = part["primary_metric"]
        unit = f" {part['unit']}" if part["unit"] != "1" and metric in ("mae", "rmse") else ""
        values = ", ".join(
            f"{seed['metrics'][metric]:.4g}" if seed["status"] == "ok" else seed["status"] for seed in part["seeds"]
        )
        trivial = "".join(
            f"; {BASELINES.get(name, name)} {scores[metric]:.4g}" for name, scores in part["baselines"].items()
        )
        print(
            f"{record['paper']}/{record['experiment']} ({record['scale']}), {target}: "
            f"{metric} {values}{unit}{trivial}; n_test {part['n_test']}"
        )


def _console() -> Console:
    """As wide as the terminal; 120 columns in a pipe."""
    return Console() if sys.stdout.isatty() else Console(width=120)


def main() -> None:
    """Entry point: errors a person can act on are one line and exit code 1, anything else is a bug with a traceback."""
    try:
        app()
    except ReplimatError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        raise
    except BrokenPipeError:  # `replimat list | head`
        sys.stdout = open(Path(os.devnull), "w")
