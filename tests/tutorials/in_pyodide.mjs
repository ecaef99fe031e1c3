// node in_pyodide.mjs DISTRIBUTION: run in_pyodide.py in Pyodide, Python for browsers, out of the folder DISTRIBUTION.
// The repository is at /repo there. Nothing is fetched: a package that the folder lacks is an error.

import { readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const distribution = resolve(process.argv[2]);
const here = dirname(fileURLToPath(import.meta.url));
globalThis.fetch = (address) => Promise.reject(new Error(`this test has no network: ${address}`));

const { loadPyodide } = await import(pathToFileURL(join(distribution, "pyodide.mjs")).href);
const pyodide = await loadPyodide({ indexURL: distribution });
await pyodide.loadPackage(["numpy", "pillow", "matplotlib", "ipython", "threadpoolctl"], { messageCallback: () => {} });
for (const folder of ["minifcn", "tests", "tutorials"]) {
  pyodide.FS.mkdirTree(`/repo/${folder}`);
  pyodide.FS.mount(pyodide.FS.filesystems.NODEFS, { root: join(here, "..", "..", folder) }, `/repo/${folder}`);
}
pyodide.runPython(`
import os, sys
sys.dont_write_bytecode = True  # what is mounted stays as it is
sys.path[:0] = ["/repo", "/repo/tests", "/repo/tutorials"]
os.environ["MPLBACKEND"] = "Agg"
os.chdir("/repo/tutorials")
`);
pyodide.runPython(readFileSync(join(here, "in_pyodide.py"), "utf8"));
