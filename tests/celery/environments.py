"""Makes environments for the integration with Celery: one for each version, on ours and on the original.

They live in ``build/celery/VERSION/{ours,original}``, and are made anew when what they are made of has
changed. Whoever makes them needs nothing but the standard library.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "build" / "celery"
REQUIREMENTS = Path(__file__).resolve().parent / "requirements"

VERSIONS = ("5.5.3", "5.6.3", "5.7.0")
NEWEST = VERSIONS[-1]
OURS = "ours"
ORIGINAL = "original"

SOURCE_SHA256 = "6a5dfcf6662287204f009a02002b9e66c83d4105e47ebabdc7079108772fc6f0"
"""Of the source distribution of the newest Celery, which brings Celery's own tests."""


class Impossible(Exception):
    """Something is missing here that cannot be put right from here."""


def run(*command: str | Path) -> None:
    """Run to the end, quietly.

    Raises:
        Impossible: It failed; the text has what it said.
    """
    done = subprocess.run(
        [str(word) for word in command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip()
        raise Impossible(f"{' '.join(str(word) for word in command[:4])}… failed:\n{said[-3000:]}")


def require_redis() -> None:
    """Find ``redis-server``, or install it from the distribution."""
    if shutil.which("redis-server"):
        return
    if shutil.which("apt-get") is None:
        raise Impossible(
            "redis-server is not installed, and there is no apt-get to do it with: install Redis"
        )
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    print("celery: redis-server, from the distribution", flush=True)
    run(*root, "apt-get", "-qq", "update")
    run(*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "install", "-y", "redis-server")


def wheel() -> Path:
    """Build this package as users get it."""
    folder = ROOT / "build" / "wheels" / "abi3"
    run(ROOT / ".ci" / "wheel", sys.executable, folder.relative_to(ROOT), "--features", "abi3")
    return next(folder.glob("*.whl"))


def original() -> str:
    """Name the original package, and the version of it that is the oracle."""
    lines = (ROOT / "requirements-oracle.txt").read_text().splitlines()
    return next(line for line in lines if line.startswith("billiard=="))


def contents(*parts: Path | str) -> str:
    """Name what an environment is made of."""
    digest = hashlib.sha256(sys.version.encode())
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else part.encode())
    return digest.hexdigest()


def python(version: str, package: str) -> Path:
    """Give the interpreter of an environment, whether it is there or not."""
    return HOME / version / package / "bin" / "python"


def make(version: str, package: str) -> Path:
    """Make an environment, or find it as it should be; gives its interpreter."""
    requirements = [REQUIREMENTS / f"{version}.txt"]
    if version == NEWEST:
        requirements.append(REQUIREMENTS / "units.txt")
    home, interpreter = HOME / version / package, python(version, package)
    stamp = home / ".made-of"
    base = contents(*requirements)
    if not stamp.exists() or stamp.read_text().split()[0] != base:
        print(f"celery: an environment with Celery {version} on {package}", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        run(sys.executable, "-m", "venv", home)
        files = [word for file in requirements for word in ("-r", str(file))]
        run(interpreter, "-m", "pip", "install", "--quiet", "--no-deps", *files)
        stamp.write_text(base)
    install = wheel() if package == OURS else original()
    there = contents(install)
    if stamp.read_text().split()[1:] != [there]:
        run(interpreter, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", str(install))
        stamp.write_text(f"{base} {there}")
    return interpreter


def source() -> Path:
    """Fetch and unpack the source of the newest Celery; gives the folder in which its tests are run.

    It is fetched by the environment of the newest Celery on the original, which has been made before.
    """
    folder = HOME / "source" / f"celery-{NEWEST}"
    if (folder / "t" / "unit").exists():
        return folder
    archive = folder.parent / f"celery-{NEWEST}.tar.gz"
    archive.parent.mkdir(parents=True, exist_ok=True)
    if not archive.exists():
        print(f"celery: the source of Celery {NEWEST}", flush=True)
        interpreter = python(NEWEST, ORIGINAL)
        options = ("--quiet", "--no-deps", "--no-binary", "celery")
        run(interpreter, "-m", "pip", "download", *options, "--dest", archive.parent, f"celery=={NEWEST}")
    if (found := hashlib.sha256(archive.read_bytes()).hexdigest()) != SOURCE_SHA256:
        archive.unlink()
        raise Impossible(f"the source of Celery {NEWEST} is not what it was: its SHA-256 is {found}")
    with tarfile.open(archive) as packed:
        packed.extractall(folder.parent, filter="data")
    return folder
