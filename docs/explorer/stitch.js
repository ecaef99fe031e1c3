/* Shift-and-stitch and filter rarefaction on one axis. The tests compare every number with minifcn.stitch. */
"use strict";

const WEIGHTS = [1, -0.5, 0.25];
const IMAGES = {
  "a spot": (n) => Array.from({ length: n }, (_, x) => (x === n >> 1 ? 1 : 0)),
  "steps": (n) => Array.from({ length: n }, (_, x) => Math.floor(x / 3) % 3),
  "noise": (n) => Array.from({ length: n }, (_, x) => Math.round(10 * Math.sin(7.3 * x * x + 2.1 * x)) / 10),
};

/** A pool of window f, with `stride`, and then a filter of k weights, `dilation` apart: both maps. */
function run(x, { f, k, stride, dilation }) {
  const pooled = [];
  for (let i = 0; i + f <= x.length; i += stride) pooled.push(Math.max(...x.slice(i, i + f)));
  const y = [];
  for (let i = 0; i + dilation * (k - 1) < pooled.length; i++) {
    y.push([...Array(k).keys()].reduce((sum, v) => sum + WEIGHTS[v] * pooled[i + v * dilation], 0));
  }
  return { pooled, y };
}

/** Everything the page shows; the copies are cut at the left and filled with zeros at the right, as `ops.shift` does. */
function compute({ n, f, k, image }) {
  const x = IMAGES[image](n), rare = run(x, { f, k, stride: 1, dilation: f });
  const runs = [...Array(f).keys()].map((s) => run([...x.slice(s), ...Array(s).fill(0)], { f, k, stride: f, dilation: 1 }).y);
  const stitched = rare.y.map((_, i) => runs[i % f][Math.floor(i / f)]);
  const most = Math.max(0, ...rare.y.map((value, i) => Math.abs(value - stitched[i])));
  return { x, pooled: rare.pooled, rarefied: rare.y, runs, stitched, most };
}

const $ = (id) => document.getElementById(id);
const state = { n: 12, f: 2, k: 2, image: "noise" };
const LIMITS = { n: [4, 20], f: [1, 4], k: [1, 3] };

function svg(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

/** Rows of cells on the pixels of the input: each row is [value or undefined for each pixel, hue]. */
function rows(id, lines, { pick = null, marked = () => false } = {}) {
  const unit = 40, drawing = svg("svg", { viewBox: `-1 -1 ${state.n * unit + 2} ${lines.length * 34 + 2}`, style: `min-width:${state.n * 30}px; max-width:${state.n * unit}px` });
  const most = Math.max(...lines.flatMap(([values]) => values.filter((v) => v !== undefined).map(Math.abs)), 1e-9);
  lines.forEach(([values, hues], row) => values.forEach((value, x) => {
    if (value === undefined) return;
    const fill = `hsla(${hues(x)}, 70%, 45%, ${(0.12 + 0.48 * Math.abs(value) / most).toFixed(2)})`;
    const box = svg("rect", { x: x * unit, y: row * 34, width: unit - 3, height: 30, fill, class: `map ${marked(x) ? "under" : ""}`, "data-x": x });
    if (pick) box.addEventListener("pointerenter", () => pick(x));
    drawing.append(box, svg("text", { x: x * unit + unit / 2 - 1, y: row * 34 + 19, "text-anchor": "middle", class: "strong" }, Number(value.toFixed(2))));
  }));
  $(id).replaceChildren(drawing);
}

function draw(chosen = null) {
  const { n, f, k } = state, found = compute(state), hue = (x) => 210 + 45 * (x % f), grey = () => 210;
  for (const key of Object.keys(state)) $(key).value = state[key];
  const none = found.rarefied.length === 0;
  $("problem").hidden = !none;
  $("problem").textContent = none ? `No output: pool and filter together see ${f * k} pixels, and the input has ${n}.` : "";
  $("ways").hidden = none;
  history.replaceState(null, "", `#${new URLSearchParams(state)}`);
  if (none) return;
  const sees = (x) => chosen !== null && x >= chosen && x < chosen + f * k;
  const taps = (x) => chosen !== null && x >= chosen && x < chosen + f * k && (x - chosen) % f === 0;
  const at = (s, values) => found.x.map((_, x) => (x % f === s && x < found.rarefied.length ? values[Math.floor(x / f)] : undefined));
  rows("input", [[found.x, grey]], { marked: sees });
  rows("shifts", found.runs.map((values, s) => [at(s, values), hue]), { pick: draw, marked: (x) => x === chosen });
  rows("stitched", [[found.stitched, hue]], { pick: draw, marked: (x) => x === chosen });
  rows("dense-pool", [[found.pooled, grey]], { marked: taps });
  rows("rarefied", [[found.rarefied, grey]], { pick: draw, marked: (x) => x === chosen });
  $("verdict").textContent = `Both give ${found.rarefied.length} answers; the largest difference is ${found.most}.`;
  $("cell").textContent = chosen === null ? "Point at a cell of a result." :
    `Pixel ${chosen} sees the pixels ${chosen} to ${chosen + f * k - 1}. Shift-and-stitch has it from run ${chosen % f}, cell ${Math.floor(chosen / f)}; the spread filter takes the cells ${[...Array(k).keys()].map((v) => chosen + v * f).join(", ")} of the dense pool.`;
}

function read(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  for (const [key, [least, most]] of Object.entries(LIMITS)) {
    const value = Number(given.get(key));
    if (given.get(key) && Number.isInteger(value)) state[key] = Math.min(Math.max(value, least), most);
  }
  if (Object.hasOwn(IMAGES, given.get("image"))) state.image = given.get("image");
}

for (const name of Object.keys(IMAGES)) $("image").append(new Option(name, name));
for (const key of Object.keys(state)) {
  $(key).addEventListener("input", () => { read(new URLSearchParams({ [key]: $(key).value }).toString()); if ($(key).value) draw(); });
}
window.addEventListener("hashchange", () => { read(location.hash); draw(); });
read(location.hash);
draw();
