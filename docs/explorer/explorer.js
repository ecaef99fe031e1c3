/* The page: what is typed becomes a state, the state is computed (geometry.js) and drawn, and stands in the address, so
   that a link shows what one sees. */
"use strict";

const $ = (id) => document.getElementById(id);
const KINDS = { floor: "floor", ceil: "ceil", transpose: "transposed" };
const state = { chain: "", size: "", skips: "", ladder: false, padded: false, kernel: "", layer: "", cell: "", all: false };

// ---- the address --------------------------------------------------------------------------------------------------

/** The state as text for the address: spaces as +, and what chains are made of stays readable. */
function toHash(of) {
  const flag = (value) => (value === true ? "1" : `${value}`);
  const parts = Object.entries(of).filter(([, value]) => value !== "" && value !== false);
  const readable = (text) => encodeURIComponent(text).replaceAll("%2F", "/").replaceAll("%3D", "=").replaceAll("%2C", ",").replaceAll("%20", "+");
  return `#${parts.map(([key, value]) => `${key}=${readable(flag(value))}`).join("&")}`;
}

/** The state in an address, `#preset=fcn-8s` or what `toHash` wrote; what is missing or unknown is as at first. */
function fromHash(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const name = given.get("preset");
  const preset = PRESETS[Object.hasOwn(PRESETS, name) ? name : "first-step"];
  const found = { ...plain(given.has("chain") ? { chain: "", size: 32 } : preset) };
  for (const [key, usual] of Object.entries(found)) {
    if (!given.has(key)) continue;
    found[key] = typeof usual === "boolean" ? given.get(key) === "1" : given.get(key).slice(0, MOST_LETTERS);
  }
  return found;
}

/** A whole state from a preset. */
function plain({ chain, size, skips = "", ladder = false, padded = false, kernel = "" }) {
  return { chain, size: `${size}`, skips, ladder, padded, kernel, layer: "", cell: "", all: false };
}

// ---- the layers as rows -------------------------------------------------------------------------------------------

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function newRow() {
  const cell = (label, kind, ...children) => element("td", { "data-label": label, class: kind }, ...children);
  const number = (key, least) => element("input", { type: "number", min: least, max: 99999, inputmode: "numeric", "data-key": key });
  const kinds = Object.entries(KINDS).map(([value, text]) => element("option", { value }, text));
  const row = element(
    "tr", {},
    cell("layer", "named", element("input", { class: "name", "data-key": "name", spellcheck: "false", autocapitalize: "off" })),
    cell("kind", "kind", element("select", { "data-key": "kind" }, ...kinds)),
    cell("kernel", "in", number("kernel", 1)), cell("stride", "in", number("stride", 1)),
    cell("padding", "in", number("padding", 0)), cell("dilation", "in", number("dilation", 1)),
    cell("size", "out first"), cell("total stride", "out"), cell("start", "out"), cell("field", "out"), cell("at the end", "note"),
    cell("", "gone", element("button", { type: "button" }, "×")),
  );
  row.querySelector("button").addEventListener("click", () => {
    const rows = [...$("layers").tBodies[0].rows];
    const at = rows.indexOf(row);
    set({ chain: rows.filter((other) => other !== row).map(rowText).join(" ") });
    ($("layers").tBodies[0].rows[Math.max(at - 1, 0)]?.querySelector("button") || $("add")).focus();
  });
  for (const input of row.querySelectorAll("input, select")) {
    input.addEventListener("input", () => set({ chain: [...$("layers").tBodies[0].rows].map(rowText).join(" ") }));
  }
  return row;
}

/** A row in the notation of the chain, as it stands there: what cannot be read is refused where the chain is read. */
function rowText(row) {
  const value = Object.fromEntries([...row.querySelectorAll("[data-key]")].map((input) => [input.dataset.key, input.value.trim()]));
  const { name, kernel, stride, padding, dilation, kind } = value;
  const typed = `${name}=${kernel}/${stride}/${padding}/${dilation}`.replaceAll(/\s/g, "_");
  const mode = kind === "transpose" ? `t${row.dataset.more || ""}` : kind === "ceil" ? "c" : "";
  try {
    return writeLayer(readChain(typed + mode)[0]); // short where it can be
  } catch {
    return typed + mode;
  }
}

/** As many rows as layers, each with its numbers; the field that is typed in is left alone. */
function showLayers(layers, rows) {
  const body = $("layers").tBodies[0];
  while (body.rows.length > layers.length) body.rows[body.rows.length - 1].remove();
  while (body.rows.length < layers.length) body.append(newRow());
  layers.forEach((layer, i) => {
    const row = body.rows[i];
    const kind = layer.transpose ? "transpose" : layer.ceil ? "ceil" : "floor";
    const values = { name: layer.name, kernel: layer.kernel, stride: layer.stride, padding: layer.padding, dilation: layer.dilation, kind };
    row.dataset.more = layer.outputPadding ? `+${layer.outputPadding}` : "";
    row.classList.toggle("chosen", layer.name === state.layer);
    for (const input of row.querySelectorAll("[data-key]")) {
      const { key } = input.dataset;
      if (input !== document.activeElement) input.value = `${values[key]}`;
      input.setAttribute("aria-label", `${key} of ${layer.name}`);
    }
    row.querySelector("button").setAttribute("aria-label", `remove ${layer.name}`);
    const [size, stride, start, field] = row.querySelectorAll("td.out");
    const found = rows[i];
    size.textContent = found.size ?? "–";
    [stride.textContent, start.textContent, field.textContent] = [found.stride, found.start, found.field];
    const note = row.querySelector("td.note");
    note.textContent = found.error || (found.size === null ? "" : atTheEnd(found));
    note.classList.toggle("bad", Boolean(found.error));
  });
}

function atTheEnd({ over, unseen, dropped }) {
  const cells = (n) => (n === "1" ? "1 cell" : `${n} cells`);
  const said = [];
  if (over !== "0") said.push(`the last window hangs over by ${cells(over)}`);
  if (dropped) said.push("one more window would start in the padding: dropped");
  if (unseen !== "0") said.push(`no window sees the last ${cells(unseen)}`);
  return said.join("; ");
}

// ---- drawings -----------------------------------------------------------------------------------------------------

function svg(tag, attributes = {}, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

/** An empty drawing in the box `id`, as wide as the box is; `label` is the text for a screen reader. */
function canvas(id, height, label) {
  const width = Math.max($(id).clientWidth, 280);
  const made = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  $(id).replaceChildren(made);
  return [made, width];
}

const box = (x, y, width, height, kind) => svg("rect", { x, y, width: Math.max(width, 0.5), height, class: kind });

/** Runs of neighbours: [0, 1, 2, 7] -> [[0, 2], [7, 7]]. */
function runs(cells) {
  const found = [];
  for (const i of cells) {
    if (found.length && i === found.at(-1)[1] + 1) found.at(-1)[1] = i;
    else found.push([i, i]);
  }
  return found;
}

/** Numbers along an axis from `low` to `high`, about eight of them, round ones. */
function ticks(low, high) {
  const raw = (high - low) / 8;
  const power = 10 ** Math.floor(Math.log10(Math.max(raw, 1)));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw) || 1;
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high; at += step) found.push(at);
  return found;
}

/** Level upon level, the image at the bottom: the cells in their places, and the cone of what the chosen one sees. */
function drawCone(layers, sizes, levels, cell) {
  const rowHeight = layers.length > 12 ? 24 : 36;
  const height = (layers.length + 1) * rowHeight + 26;
  const [drawing, width] = canvas("cone", height, $("cone-text").textContent);
  const gutter = width < 500 ? 84 : 130;
  const grids = [new Grid()];
  for (const layer of layers) grids.push(grids.at(-1).through(layer));
  const centre = (level, i) => grids[level].start.toNumber() + grids[level].stride.toNumber() * i;
  const half = (level) => grids[level].stride.toNumber() / 2;
  const marked = levels.map((level) => level && { seen: level.cells.map(Number), padding: level.padding.map(Number) });
  const ends = marked.map((level, k) => {
    if (level) {
      const all = [...level.seen, ...level.padding];
      if (!all.length) return null;
      const [low, high] = all.reduce(([a, b], i) => [Math.min(a, i), Math.max(b, i)], [Infinity, -Infinity]);
      return [centre(k, low) - half(k), centre(k, high) + half(k)];
    }
    const reach = (grids.at(-1).field.toNumber() + 1) / 2; // too many to walk through: the whole field
    return [centre(layers.length, cell) - reach, centre(layers.length, cell) + reach];
  });
  let [low, high] = [Infinity, -Infinity];
  for (const end of ends) if (end) [low, high] = [Math.min(low, end[0]), Math.max(high, end[1])];
  if (state.all) {
    sizes.forEach((n, k) => { low = Math.min(low, centre(k, 0) - half(k)); high = Math.max(high, centre(k, n - 1) + half(k)); });
  }
  const margin = Math.max((high - low) * 0.04, 1.5);
  [low, high] = [low - margin, high + margin];
  const scale = (width - gutter - 12) / (high - low);
  const x = (at) => gutter + (at - low) * scale;
  const top = (level) => (layers.length - level) * rowHeight + 4;
  const thick = rowHeight - 16;

  levels.forEach((_, k) => { // the cone first: cells are drawn on it
    if (!k || !ends[k] || !ends[k - 1]) return;
    const [[a, b], [c, d]] = [ends[k], ends[k - 1]];
    const [from, to] = [top(k) + thick, top(k - 1)];
    drawing.append(svg("polygon", { points: `${x(a)},${from} ${x(b)},${from} ${x(d)},${to} ${x(c)},${to}`, class: "cone" }));
  });
  sizes.forEach((n, k) => {
    const name = k ? layers[k - 1].name : "image";
    const label = name.length > (gutter < 100 ? 7 : 12) ? `${name.slice(0, gutter < 100 ? 6 : 11)}…` : name;
    drawing.append(svg("text", { x: 2, y: top(k) + thick - 1, class: k === layers.length ? "strong" : "" }, `${label} ${n}`));
    const pitch = 2 * half(k) * scale;
    const first = Math.max(0, Math.floor((low - centre(k, 0)) / (2 * half(k))));
    const last = Math.min(n - 1, Math.ceil((high - centre(k, 0)) / (2 * half(k))));
    const bar = (a, b, kind) => drawing.append(box(x(centre(k, a) - half(k)), top(k), (b - a + 1) * pitch, thick, kind));
    const lit = new Set(marked[k]?.seen || []);
    if (pitch < 4 || last - first > 600) { // too fine to draw single cells
      if (last >= first) bar(first, last, k ? "cell" : "pixel");
      if (!marked[k]) drawing.append(box(x(ends[k][0]), top(k), (ends[k][1] - ends[k][0]) * scale, thick, "seen"));
      else for (const [a, b] of runs(marked[k].seen)) bar(a, b, k ? "seen" : "pixelseen");
      for (const [a, b] of runs(marked[k]?.padding || [])) bar(a, b, "padseen");
      return;
    }
    const wide = k ? Math.min(pitch * 0.7, 14) : pitch;
    const place = (i, kind) => box(x(centre(k, i)) - wide / 2, top(k), wide, thick, kind);
    for (let i = first; i <= last; i++) {
      const made = place(i, k ? (lit.has(i) ? "seen" : "cell") : lit.has(i) ? "pixelseen" : "pixel");
      if (k === layers.length) {
        made.classList.add("pick");
        made.addEventListener("click", () => set({ cell: `${i}` }));
      }
      drawing.append(made);
    }
    for (const i of marked[k]?.padding || []) drawing.append(place(i, "padseen"));
  });
  for (const at of ticks(low + margin / 2, high - margin / 2)) {
    drawing.append(svg("line", { x1: x(at), x2: x(at), y1: top(0) + thick, y2: top(0) + thick + 4, class: "axis" }));
    drawing.append(svg("text", { x: x(at), y: top(0) + thick + 15, "text-anchor": "middle" }, `${at}`));
  }
}

/** The image from above, the centres of the cells, and what one of them sees, padding included: `image` of its levels,
    or its field where those are too many. */
function drawPlan(layers, size, count, cell, image) {
  const grid = Grid.of(layers);
  const [start, stride, field] = [grid.start.toNumber(), grid.stride.toNumber(), grid.field.toNumber()];
  const centre = start + stride * cell;
  const all = image && [...image.cells, ...image.padding].map(Number);
  const [from, to] = all?.length ? [Math.min(...all) - 0.5, Math.max(...all) + 0.5] : [centre - field / 2, centre + field / 2];
  const low = Math.min(-0.5, from, start) - 1;
  const high = Math.max(size - 0.5, to, start + stride * (count - 1)) + 1;
  const side = Math.min(Math.max($("plan").clientWidth, 280), 440);
  const [drawing, width] = canvas("plan", side, `the field of cell (${cell}, ${cell}) on the image`);
  const scale = side / (high - low);
  const x = (at) => (width - side) / 2 + (at - low) * scale;
  const y = (at) => (at - low) * scale;
  drawing.append(box(x(-0.5), y(-0.5), size * scale, size * scale, "pixel"));
  if (scale >= 6) {
    for (let i = 1; i < size; i++) {
      drawing.append(svg("line", { x1: x(i - 0.5), x2: x(i - 0.5), y1: y(-0.5), y2: y(size - 0.5), class: "axis" }));
      drawing.append(svg("line", { x1: x(-0.5), x2: x(size - 0.5), y1: y(i - 0.5), y2: y(i - 0.5), class: "axis" }));
    }
  }
  drawing.append(box(x(from), y(from), (to - from) * scale, (to - from) * scale, "field"));
  const every = Math.max(1, Math.ceil(count / 48)); // enough dots to see the grid
  for (let i = 0; i < count; i += every) {
    for (let j = 0; j < count; j += every) {
      drawing.append(svg("circle", { cx: x(start + stride * j), cy: y(start + stride * i), r: Math.min(2.2, Math.max(stride * every * scale * 0.25, 0.6)), class: "centre" }));
    }
  }
  drawing.append(svg("circle", { cx: x(centre), cy: y(centre), r: 4, class: "seen" }));
}

/** The last windows of one layer on the cells they slide over: which hang over, which is dropped, which cells no window sees. A
    transposed layer's windows lie on its output, and the padding cuts them there. */
function drawEnd(layer, before, after) {
  const [kernel, stride, padding, dilation, extent] = ["kernel", "stride", "padding", "dilation", "extent"].map((key) => Number(layer[key]));
  const cells = layer.transpose ? after : before;
  const moved = layer.transpose ? before : after;
  const end = layer.end(BigInt(before));
  const windows = Array.from({ length: Math.min(moved, 4) }, (_, i) => moved - Math.min(moved, 4) + i);
  const shown = windows.map((j) => ({ j, start: j * stride - padding, kind: end.over && j === moved - 1 ? "over" : "window" }));
  if (end.dropped) shown.push({ j: moved, start: moved * stride - padding, kind: "dropped" });
  const low = shown[0].start;
  const high = Math.max(cells - 1 + padding, ...shown.map(({ start }) => start + extent - 1));
  const row = 26;
  const sentence = layer.transpose
    ? `The last windows of ${layer.name}: each of its ${before} input cells paints ${kernel} of its output cells` +
      `${padding ? `, and what falls into the padding of ${padding} is cut` : ""}.`
    : `The end of the axis under ${layer.name}, whose input has ${before} cells: ${atTheEnd({ over: `${end.over}`, unseen: `${end.unseen}`, dropped: end.dropped }) || "every window fits, and every cell is seen"}.`;
  $("end-text").textContent = sentence;
  const [drawing, width] = canvas("end", (shown.length + 1) * row + 20, sentence);
  const gutter = 56;
  const pitch = Math.min((width - gutter - 6) / (high - low + 1), 26);
  const x = (i) => gutter + (i - low) * pitch;
  const fine = pitch < 5;
  const line = (a, b, y, kind) => {
    if (b < a) return;
    if (fine) drawing.append(box(x(a), y, (b - a + 1) * pitch, row - 10, kind));
    else for (let i = a; i <= b; i++) drawing.append(box(x(i) + 0.5, y, pitch - 1, row - 10, kind));
  };
  drawing.append(svg("text", { x: 2, y: 14 }, "cells"));
  line(low, Math.min(-1, high), 2, "pad");
  line(Math.max(low, 0), Math.min(cells - 1, high), 2, "cell");
  line(Math.max(cells, low), Math.min(cells - 1 + padding, high), 2, "pad");
  shown.forEach(({ j, start, kind }, i) => {
    const y = (i + 1) * row + 2;
    drawing.append(svg("text", { x: 2, y: y + 12 }, kind === "dropped" ? "none" : `${layer.transpose ? "in" : "out"} ${j}`));
    if (fine || dilation === 1) drawing.append(box(x(start), y, extent * pitch, row - 10, kind));
    else for (let tap = 0; tap < kernel; tap++) drawing.append(box(x(start + tap * dilation) + 0.5, y, pitch - 1, row - 10, kind));
  });
  for (const at of fine ? ticks(low, high) : [Math.max(low, 0), cells - 1]) {
    drawing.append(svg("text", { x: x(at) + pitch / 2, y: (shown.length + 1) * row + 14, "text-anchor": "middle" }, `${at}`));
  }
}

/** The two maps that meet at each rung, one above the other on the axis of the image, with what the crop cuts. */
function drawRungs(layers, rungs, sizes, size) {
  const paths = new Map(layers.map((layer, i) => [layer.name, Grid.of(layers.slice(0, i + 1))]));
  let score = paths.get(layers.at(-1).name);
  const bars = [];
  rungs.forEach((rung, i) => {
    const up = new Layer({ kernel: rung.kernel, stride: rung.factor, padding: rung.padding, transpose: true });
    score = score.through(up);
    const other = rung.skip ? paths.get(rung.skip) : new Grid();
    const kept = rung.cut === "skip" ? [0, Number(rung.at)] : [Number(rung.at), 0];
    bars.push([rung.name, score, Number(sizes[i].score), kept[0], Number(sizes[i].kept), "kept"]);
    bars.push([rung.skip || "image", other, Number(sizes[i].like), kept[1], Number(sizes[i].kept), rung.skip ? "kept" : "image"]);
    score = score.cropped(BigInt(kept[0]));
  });
  const ends = bars.map(([, grid, n]) => [grid.start.toNumber() - grid.stride.toNumber() / 2, grid.start.toNumber() + grid.stride.toNumber() * (n - 0.5)]);
  const [low, high] = [Math.min(...ends.map(([a]) => a), -0.5), Math.max(...ends.map(([, b]) => b), size - 0.5)];
  const row = 24;
  const [drawing, width] = canvas("rungs-drawing", (bars.length + rungs.length / 2) * row + 24, rungs.map(said).join("; "));
  const gutter = width < 500 ? 100 : 130;
  const scale = (width - gutter - 4) / (high - low);
  const x = (at) => gutter + (at - low) * scale;
  const height = (bars.length + rungs.length / 2) * row;
  for (const at of [-0.5, size - 0.5]) drawing.append(svg("line", { x1: x(at), x2: x(at), y1: 0, y2: height, class: "axis" }));
  bars.forEach(([name, grid, n, at, kept, kind], i) => {
    const y = i * row + Math.floor(i / 2) * (row / 2) + 2;
    const [start, stride] = [grid.start.toNumber(), grid.stride.toNumber()];
    drawing.append(svg("text", { x: 2, y: y + 12 }, name.length > 15 ? `${name.slice(0, 14)}…` : name));
    drawing.append(box(x(start - stride / 2), y, n * stride * scale, row - 9, "cut"));
    drawing.append(box(x(start + stride * (at - 0.5)), y, kept * stride * scale, row - 9, kind));
  });
  for (const at of [0, size - 1]) drawing.append(svg("text", { x: x(at), y: height + 14, "text-anchor": "middle" }, `${at}`));
}

/** A crop as `minifcn design` writes it. */
function said(rung) {
  const [cut, like] = rung.cut === "skip" ? [rung.skip, "score"] : ["score", rung.skip || "image"];
  return `crop(${cut}, like=${like}, at=${rung.at})`;
}

// ---- from the state to the page -----------------------------------------------------------------------------------

function showLadder(layers, ladder, size) {
  $("rungs").hidden = !ladder || !ladder.rungs.length;
  $("ladder-figure").hidden = !ladder || !ladder.sizes;
  const short = ladder && !ladder.error && ladder.out !== `${size}` ? `comes out as ${ladder.out} of ${size} pixels: use more padding` : "";
  complain("ladder-problem", ladder?.error || short);
  if (!ladder) return;
  const rows = ladder.rungs.map((rung, i) => {
    const sizes = ladder.sizes?.[i];
    const meets = `${rung.skip || "image"}${sizes ? ` (${sizes.like})` : ""}`;
    const values = [rung.name, rung.kernel, rung.factor, rung.padding, sizes?.score ?? "–", meets, said(rung), sizes?.kept ?? "–"];
    return element("tr", {}, ...values.map((value) => element("td", {}, value)));
  });
  $("rungs").tBodies[0].replaceChildren(...rows);
  if (ladder.sizes) drawRungs(layers, ladder.rungs, ladder.sizes, size);
}

function complain(id, message) {
  if ($(id).textContent !== (message || "")) $(id).textContent = message || "";
  $(id).hidden = !message;
}

/** The chosen cell in words. */
function coneText(layer, layers, levels, cell) {
  const grid = Grid.of(layers);
  const at = grid.at(cell);
  const where = at.d === 2n ? `between pixels ${floorDiv(at.n, 2n)} and ${floorDiv(at.n, 2n) + 1n}` : "";
  const centre = `Cell ${cell} of ${layer.name} has its centre at pixel ${at}${where ? `, ${where}` : ""}; its field is ${grid.field}`;
  const image = levels[0];
  if (!image) return `${centre}, too many cells to show separately here.`;
  const n = image.cells.length;
  const span = !n ? "none" : n === 1 ? `pixel ${image.cells[0]}` : `${n} pixels from ${image.cells[0]} to ${image.cells.at(-1)}`;
  const holes = n > 1 && image.cells.at(-1) - image.cells[0] + 1n > BigInt(n) ? ", with holes" : "";
  return `${centre}. On the image it sees ${span}${holes}.`;
}

function python(layers) {
  const lines = layers.map((layer) => {
    const options = [`${layer.kernel}`];
    if (layer.stride !== 1n) options.push(`stride=${layer.stride}`);
    if (layer.padding) options.push(`padding=${layer.padding}`);
    if (layer.dilation !== 1n) options.push(`dilation=${layer.dilation}`);
    if (layer.ceil) options.push("ceil=True");
    if (layer.transpose) options.push("transpose=True");
    if (layer.outputPadding) options.push(`output_padding=${layer.outputPadding}`);
    return `    Layer(${options.join(", ")}),  # ${layer.name}`;
  });
  return `from minifcn.geometry import Grid, Layer, out_size\n\nlayers = [\n${lines.join("\n")}\n]\nprint(Grid.of(layers), out_size(layers, ${state.size}))`;
}

function show() {
  let result;
  let layers;
  try {
    result = compute(state);
    layers = readChain(state.chain);
  } catch (fault) {
    if (!(fault instanceof UsageError)) throw fault;
    complain("problem", fault.message);
    document.querySelector("#layers tbody").classList.add("stale");
    return;
  }
  document.querySelector("#layers tbody").classList.remove("stale");
  const broken = result.layers.find((row) => row.error);
  complain("problem", broken && `${broken.name}: ${broken.error}`);
  showLayers(layers, result.layers);
  const fitting = result.layers.filter((row) => row.size !== null).length;
  const options = layers.slice(0, fitting).map(({ name }) => element("option", { value: name }, name));
  $("layer").replaceChildren(...options);
  let at = layers.findIndex(({ name }) => name === state.layer);
  if (at < 0 || at >= fitting) at = fitting - 1;
  const fits = (row) => [row.size, row.stride, row.start, row.field].every((text) => text.length < 20); // a long one has no place
  if (at >= 0 && result.layers.slice(0, at + 1).every(fits)) showCell(layers, at, result);
  else {
    for (const id of ["cone", "plan", "end"]) $(id).replaceChildren();
    $("end-text").textContent = "";
    $("cone-text").textContent = at >= 0 ? "These numbers are too long to be drawn." : "";
  }
  showLadder(layers, result.ladder, Number(state.size));
  $("code").textContent = python(layers);
}

function showCell(layers, at, result) {
  const path = layers.slice(0, at + 1);
  const sizes = [Number(state.size), ...result.layers.slice(0, at + 1).map((row) => Number(row.size))];
  const count = sizes.at(-1);
  const typed = Number.parseInt(state.cell, 10);
  const cell = Number.isNaN(typed) ? Math.floor((count - 1) / 2) : Math.min(Math.max(typed, 0), count - 1);
  $("layer").value = layers[at].name;
  for (const id of ["cell", "cell-range"]) {
    $(id).max = count - 1;
    if ($(id) !== document.activeElement || $(id).type === "range") $(id).value = cell;
  }
  const levels = seen(path, BigInt(state.size), BigInt(cell));
  $("cone-text").textContent = coneText(layers[at], path, levels, BigInt(cell));
  drawCone(path, sizes, levels, cell);
  drawPlan(path, sizes[0], count, cell, levels[0]);
  drawEnd(layers[at], sizes.at(-2), count);
}

/** Change the state, write it into the address, and show it. */
function set(changes) {
  Object.assign(state, changes);
  history.replaceState(null, "", toHash(state));
  $("shared").textContent = $("least-text").textContent = "";
  fill();
  show();
}

/** The controls from the state; the one that is typed in is left alone. */
function fill() {
  for (const id of ["chain", "size", "skips", "kernel"]) if ($(id) !== document.activeElement) $(id).value = state[id];
  for (const id of ["ladder", "padded", "all"]) $(id).checked = state[id];
  const same = ([, preset]) => Object.entries(plain(preset)).every(([key, value]) => ["layer", "cell", "all"].includes(key) || state[key] === value);
  $("preset").value = Object.entries(PRESETS).find(same)?.[0] || "";
}

function begin() {
  for (const [value, { title }] of Object.entries(PRESETS)) $("preset").append(element("option", { value }, title));
  $("preset").addEventListener("input", () => $("preset").value && set(plain(PRESETS[$("preset").value])));
  for (const id of ["size", "skips", "kernel", "cell"]) $(id).addEventListener("input", () => set({ [id]: $(id).value.trim() }));
  $("chain").addEventListener("input", () => set({ chain: $("chain").value.trim().replaceAll(/\s+/g, " ") }));
  for (const id of ["ladder", "padded", "all"]) $(id).addEventListener("input", () => set({ [id]: $(id).checked }));
  $("layer").addEventListener("input", () => set({ layer: $("layer").value, cell: "" }));
  $("cell-range").addEventListener("input", () => set({ cell: $("cell-range").value }));
  $("add").addEventListener("click", () => {
    const taken = new Set(state.chain.split(/\s+/).map((word, i) => (word.includes("=") ? word.split("=")[0] : `layer${i + 1}`)));
    let number = 1;
    while (taken.has(`conv${number}`)) number++;
    set({ chain: `${state.chain} conv${number}=3/1/1`.trim() });
  });
  $("least").addEventListener("click", () => {
    try {
      const layers = readChain(state.chain);
      const skips = state.skips.split(",").map((skip) => skip.trim()).filter(Boolean);
      const least = safePadding(layers, skips, { padded: state.padded, kernel: state.kernel || 0 });
      $("least-text").textContent = `padding ${least} in ${layers[0].name} is the least with which images of every size come out whole`;
    } catch (fault) {
      if (!(fault instanceof GeometryError || fault instanceof UsageError)) throw fault;
      $("least-text").textContent = fault.message;
    }
  });
  $("share").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      $("shared").textContent = "copied";
    } catch {
      $("shared").textContent = "the link is in the address line";
    }
  });
  window.addEventListener("hashchange", () => { Object.assign(state, fromHash(location.hash)); fill(); show(); });
  window.addEventListener("resize", show);
  Object.assign(state, fromHash(location.hash));
  fill();
  show();
}

begin();
