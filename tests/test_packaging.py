"""What is published: no registry or machine named, complete locks, one-way imports, small files, no root."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_BYTES = 2_000_000
MAX_LINES = 400
# Spelt apart, so that this file passes its own test.
REGISTRY_HOSTS = [
    "py|pi.org",
    "python|hosted.org",
    "npm|js.org",
    "npm|js.com",
    "download.py|torch.org",
    "ana|conda.org",
]
MACHINE_FOLDERS = ["/wo|rk/", "/ro|ot/", "/ho|me/", "/Us|ers/"]
LOCKS = ["cpu.txt", "gpu.txt", "train.txt"]


def published() -> list[Path]:
    """Files that git tracks or would track. Skips where there is no git, as in an image."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"not a git checkout: {error}")
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def lines_with(pattern: str) -> list[str]:
    """Lines of published text files in which the pattern is found."""
    found = []
    for path in published():
        content = path.read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode().splitlines(), start=1):
            if re.search(pattern, line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    return found


def normal(name: str) -> str:
    """Name of a package as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: str) -> dict[str, str]:
    """Package -> version of one file of envs/."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", (ROOT / "envs" / lock).read_text(), re.MULTILINE)
    return {normal(name): version for name, version in found}


def declared(*extras: str) -> set[str]:
    """Packages that pyproject.toml asks for, with those of the extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [one for extra in extras for one in project["optional-dependencies"][extra]]
    return {normal(re.match(r"[A-Za-z0-9._-]+", one)[0]) for one in wanted} - {"replimat"}


def lint_imports(folder: Path) -> subprocess.CompletedProcess:
    """import-linter on the package below `folder`, with the contract of pyproject.toml."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--config", ROOT / "pyproject.toml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_no_registry_is_named():
    assert lines_with("|".join(re.escape(host.replace("|", "")) for host in REGISTRY_HOSTS)) == []


def test_no_path_of_one_machine():
    folders = "|".join(folder.replace("|", "") for folder in MACHINE_FOLDERS)
    assert lines_with(rf"(?<![\w.:}}/-])({folders})\w") == []


def test_files_are_small():
    sizes = {str(path.relative_to(ROOT)): path.stat().st_size for path in published()}
    assert {name: size for name, size in sizes.items() if size > MAX_BYTES} == {}


def test_modules_are_short():
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in published() if path.suffix == ".py"
    }
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


@pytest.mark.parametrize(
    ("lock", "extras"), [("cpu.txt", ("suite", "dev")), ("gpu.txt", ("suite", "dev")), ("train.txt", ())]
)
def test_every_dependency_is_pinned(lock, extras):
    pinned = pins(lock) | (pins("torch.txt") if lock == "cpu.txt" else {})
    assert declared(*extras) - pinned.keys() == set()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_a_hash(lock):
    entries = re.split(r"\n(?=\S)", (ROOT / "envs" / lock).read_text().strip())
    assert len(entries) == len(pins(lock))
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_locks_agree():
    for lock in ("cpu.txt", "train.txt", "torch.txt"):
        assert pins(lock).items() <= pins("gpu.txt").items(), lock


def test_cuda_is_all_that_the_processor_lock_lacks():
    lacks = pins("gpu.txt").keys() - pins("cpu.txt").keys()
    assert {re.match("[a-z]+", name)[0] for name in lacks} == {"torch", "triton", "cuda", "nvidia"}


def test_imports_run_one_way():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_import_up_the_house_is_caught(tmp_path):
    package = shutil.copytree(ROOT / "src" / "replimat", tmp_path / "replimat")
    with open(package / "files.py", "a") as stream:
        stream.write("\nimport replimat.cli\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert "replimat.files is not allowed to import replimat.cli" in done.stdout


@pytest.mark.parametrize("target", ["cpu", "gpu", "train"])
def test_images_run_without_root(target):
    """The last USER of an image is not root, and its packages come from the lock of the same name."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    stages = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", dockerfile, re.MULTILINE | re.DOTALL))
    assert re.findall(r"^USER (\S+)", stages[target], re.MULTILINE)[-1] == "1000:1000"
    assert f"--from=packages-{target} " in stages[target]
    assert f"--require-hashes --requirement /envs/{target}.txt" in stages[f"packages-{target}"]


def test_planning_is_quick():
    """Every call of snakemake and every job of a cluster plans the suite first: without the slow libraries."""
    code = "import sys; from replimat.experiments.catalogue import plan; plan('paper', 'paper'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    slow = {"lightning", "torch_geometric", "pymatgen", "ase", "sklearn", "matplotlib", "chgnet", "matminer"}
    assert slow & set(done.stdout.split()) == set()
