/* The page: a state, which stands in the address, is computed (convolve.js) and drawn. */
"use strict";

const $ = (id) => document.getElementById(id);
const NUMBERS = { n: [1, 12], k: [1, 5], stride: [1, 4], padding: [0, 6], dilation: [1, 3] };
const FIRST = { kind: "conv", n: 6, k: 3, stride: 1, padding: 0, dilation: 1, image: "noise", weights: "left minus right", at: 0 };
const state = { ...FIRST };
let weights = [], timer = 0;

function read(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const found = { ...FIRST };
  for (const key of Object.keys(FIRST)) if (given.has(key)) found[key] = typeof FIRST[key] === "number" ? Number(given.get(key)) : given.get(key);
  for (const [key, [least, most]] of Object.entries(NUMBERS)) {
    found[key] = Number.isInteger(found[key]) ? Math.min(Math.max(found[key], least), most) : FIRST[key];
  }
  if (!["conv", "transposed"].includes(found.kind)) found.kind = FIRST.kind;
  if (!Object.hasOwn(IMAGES, found.image)) found.image = FIRST.image;
  if (!Object.hasOwn(WEIGHTS, found.weights)) found.weights = FIRST.weights;
  if (!Number.isInteger(found.at) || found.at < 0) found.at = 0;
  return found;
}

const shown = (value) => `${Number(value.toFixed(2))}`;

function svg(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

/** A map as squares with their numbers; `marked(y, x)` gives a class, `margin` rows of padding are drawn around it. */
function grid(id, values, { margin = 0, marked = () => "", coloured = true }) {
  const side = values.length, all = side + 2 * margin, unit = 30;
  const most = Math.max(...values.flat().map(Math.abs), 1e-9);
  const drawing = svg("svg", { viewBox: `-1 -1 ${all * unit + 2} ${all * unit + 2}`, style: `max-width:${Math.min(all * 34, 420)}px` });
  for (let y = -margin; y < side + margin; y++) for (let x = -margin; x < side + margin; x++) {
    const value = values[y]?.[x], [left, top] = [(x + margin) * unit, (y + margin) * unit];
    const part = value === undefined || !coloured ? 0 : Math.abs(value) / most;
    const fill = value === undefined ? "none" : value < 0 ? `rgba(33,102,172,${part.toFixed(3)})` : `rgba(178,24,43,${part.toFixed(3)})`;
    const box = { x: left, y: top, width: unit, height: unit, fill, class: `map ${value === undefined ? "pad" : ""} ${marked(y, x)}`, "data-y": y, "data-x": x };
    drawing.append(svg("rect", box));
    const text = value === undefined ? "" : shown(value);
    drawing.append(svg("text", { x: left + unit / 2, y: top + unit / 2 + 4, "text-anchor": "middle", class: part > (value < 0 ? 0.83 : 0.7) ? "light" : "strong" }, text));
  }
  $(id).replaceChildren(drawing);
}

/** The sides of what is walked over: output cells of a convolution, input cells of a transposed one. */
const walked = () => (state.kind === "transposed" ? state.n : outSide(state));

function draw() {
  for (const key of ["kind", "image", "weights", ...Object.keys(NUMBERS)]) $(key).value = state[key];
  for (const key of Object.keys(NUMBERS)) $(key).nextElementSibling.value = state[key];
  const out = outSide(state), problem = typeof out === "string" ? out : "";
  $("problem").hidden = !problem;
  $("problem").textContent = problem && `No output: ${problem}.`;
  $("grids").hidden = $("sum").hidden = $("even").hidden = !!problem;
  history.replaceState(null, "", `#${new URLSearchParams(state)}`);
  if (problem) return;
  const image = IMAGES[state.image](state.n), { y, counts } = apply(state, image, weights);
  state.at = Math.min(state.at, walked() ** 2 - 1);
  const here = [Math.floor(state.at / walked()), state.at % walked()];
  const [own, other] = state.kind === "transposed" ? ["from", "to"] : ["to", "from"];
  const touched = [...products(state)].filter((product) => `${product[own]}` === `${here}`);
  const places = new Set(touched.map((product) => `${product[other]}`));
  const window = (i, j) => [...Array(state.k).keys()].some((u) => i === here[0] * state.stride - state.padding + u * state.dilation) &&
    [...Array(state.k).keys()].some((v) => j === here[1] * state.stride - state.padding + v * state.dilation);
  const chosen = (i, j) => (`${[i, j]}` === `${here}` ? "chosen" : "");
  const under = (i, j) => (window(i, j) ? "under" : "");
  const gather = state.kind === "conv";
  grid("input", image, { margin: gather ? state.padding : 0, marked: gather ? under : chosen });
  grid("output", y, { marked: gather ? chosen : (i, j) => (places.has(`${[i, j]}`) ? "under" : "") });
  grid("counts", counts, {});
  $("input-text").textContent = `input ${state.n} × ${state.n}${gather && state.padding ? ", in zeros" : ""}`;
  $("output-text").textContent = `output ${out} × ${out}`;
  const terms = touched.map(({ from, tap }) => `${shown(image[from[0]][from[1]])} · ${shown(weights[tap[0]][tap[1]])}`);
  $("sum").textContent = gather
    ? `Output cell ${here.join(", ")} = ${terms.join(" + ") || "0"} = ${shown(y[here[0]][here[1]])}`
    : `Input cell ${here.join(", ")}, value ${shown(image[here[0]][here[1]])}, adds ${shown(image[here[0]][here[1]])} times the kernel to ${touched.length} output cells.`;
  const kinds = [...new Set(inside(counts).flat())].sort((a, b) => a - b);
  $("even").textContent = kinds.length > 1 && !gather
    ? `Away from the border, output cells get ${kinds.join(", ")} products: a checkerboard.${state.dilation > 1 ? "" : " It goes away when the kernel is a multiple of the stride."}`
    : "";
  $("code").textContent = `${gather ? "y = ops.conv2d(x, w, None" : "y = ops.conv_transpose2d(x, w, None"}, stride=${state.stride}, padding=${state.padding}, dilation=${state.dilation})  # x (1, 1, ${state.n}, ${state.n}), w (1, 1, ${state.k}, ${state.k}), y (1, 1, ${out}, ${out})`;
}

/** The part of a map that no border reaches, or the whole map where it is too small. */
function inside(counts) {
  const border = state.dilation * (state.k - 1), end = counts.length - border;
  return end - border >= 2 ? counts.slice(border, end).map((row) => row.slice(border, end)) : counts;
}

function drawKernel() {
  $("kernel").style.gridTemplateColumns = `repeat(${state.k}, 1fr)`;
  $("kernel").replaceChildren(...weights.flatMap((row, u) => row.map((value, v) => {
    const box = document.createElement("input");
    Object.assign(box, { type: "number", step: 0.1, value: shown(value), ariaLabel: `weight ${u}, ${v}` });
    box.addEventListener("input", () => { weights[u][v] = Number(box.value); draw(); });
    let start = null;
    box.addEventListener("pointerdown", (event) => { start = [event.clientY, weights[u][v]]; box.setPointerCapture(event.pointerId); });
    box.addEventListener("pointermove", (event) => {
      if (!start || Math.abs(event.clientY - start[0]) < 3) return;
      weights[u][v] = Math.round(10 * start[1] + (start[0] - event.clientY) / 4) / 10;
      box.value = shown(weights[u][v]);
      draw();
    });
    for (const end of ["pointerup", "pointercancel"]) box.addEventListener(end, () => { start = null; });
    return box;
  })));
}

/** Everything anew: after the kernel's size or preset has changed. */
function restart() {
  weights = WEIGHTS[state.weights](state.k);
  drawKernel();
  draw();
}

/** Move to the cell whose window has its middle nearest to a place of the input. */
function moveTo(y, x) {
  const middle = (place) => (place + state.padding - (state.dilation * (state.k - 1)) / 2) / state.stride;
  const near = (place) => Math.min(Math.max(Math.round(state.kind === "conv" ? middle(place) : place), 0), walked() - 1);
  state.at = near(y) * walked() + near(x);
  draw();
}

function follow(id, move) {
  let down = false;
  const go = (event) => {
    const at = document.elementFromPoint(event.clientX, event.clientY)?.closest(`#${id} rect`);
    if (at) move(Number(at.dataset.y), Number(at.dataset.x));
  };
  $(id).addEventListener("pointerdown", (event) => { down = true; event.preventDefault(); go(event); });
  window.addEventListener("pointermove", (event) => { if (down) go(event); });
  for (const end of ["pointerup", "pointercancel"]) window.addEventListener(end, () => { down = false; });
  $(id).addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const side = walked(), y = Math.floor(state.at / side) + step[0], x = (state.at % side) + step[1];
    if (y >= 0 && x >= 0 && y < side && x < side) { state.at = y * side + x; draw(); }
  });
}

function play(on = timer === 0) {
  clearInterval(timer);
  timer = on && typeof outSide(state) === "number" ? setInterval(() => { state.at = (state.at + 1) % walked() ** 2; draw(); }, 500) : 0;
  $("play").textContent = timer ? "Pause" : "Play";
}

for (const [id, table] of [["image", IMAGES], ["weights", WEIGHTS]]) {
  for (const name of Object.keys(table)) $(id).append(new Option(name, name));
}
for (const key of ["kind", "image", "weights", ...Object.keys(NUMBERS)]) {
  $(key).addEventListener("input", () => {
    Object.assign(state, read(new URLSearchParams({ ...state, [key]: $(key).value }).toString()));
    if (key === "k" || key === "weights") restart(); else draw();
  });
}
$("play").addEventListener("click", () => play());
$("checkerboard").addEventListener("click", () => {
  Object.assign(state, FIRST, { kind: "transposed", n: 5, k: 3, stride: 2, image: "all ones", weights: "ones" });
  restart();
});
follow("input", moveTo);
follow("output", (y, x) => {
  if (state.kind === "conv") { state.at = y * walked() + x; draw(); }
});
window.addEventListener("hashchange", () => { Object.assign(state, read(location.hash)); restart(); });
Object.assign(state, read(location.hash));
restart();
