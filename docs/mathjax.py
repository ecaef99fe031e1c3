"""Put MathJax, which draws the formulas, into the built site, out of its npm package: the site then needs no network.

python docs/mathjax.py FOLDER        leaves FOLDER/tex-svg-full.js and its licence
"""

import hashlib
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

PACKAGE = "mathjax@3.2.2"
FILES = {
    "package/es5/tex-svg-full.js": "a4354ff94fd868aea0cc6eaaa79a57fda0588646fc46ee3700a349ee0a11cbe6",
    "package/LICENSE": "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30",
}


def main(folder: pathlib.Path) -> int:
    there = {folder / pathlib.Path(name).name: digest for name, digest in FILES.items()}
    if all(path.is_file() and sha256(path.read_bytes()) == digest for path, digest in there.items()):
        return 0
    npm = shutil.which("npm")
    if not npm:
        return complain(
            "npm is not found; MathJax comes from its npm package. Install npm: sudo apt install npm (Debian, Ubuntu)"
        )
    with tempfile.TemporaryDirectory() as work:
        done = subprocess.run(  # noqa: S603  our own words
            [npm, "pack", "--silent", PACKAGE], cwd=work, capture_output=True, text=True, check=False
        )
        packed = list(pathlib.Path(work).glob("*.tgz"))
        if done.returncode or not packed:
            why = done.stderr.strip().splitlines() or ["no word why"]
            return complain(f"npm pack {PACKAGE} failed ({why[-1]}); is there a network?")
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(packed[0]) as archive:
            for (name, digest), path in zip(FILES.items(), there, strict=True):
                member = archive.extractfile(name)
                content = member.read() if member else b""
                if sha256(content) != digest:
                    return complain(f"{PACKAGE}: {name} has SHA-256 {sha256(content)}; expected {digest}")
                path.write_bytes(content)
    return 0


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def complain(what: str) -> int:
    print(f"minifcn: {what}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
