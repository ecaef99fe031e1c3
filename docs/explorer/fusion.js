/* The scores of a real net, map by map (fusion-data.js, made by docs/pictures.py), added up with weights. */
"use strict";

const $ = (id) => document.getElementById(id);
const { side, classes, colours, names, truth, parts } = FUSION;
const SCORES = parts.map((text) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Int16Array(bytes.buffer); // hundredths, (class, row, column)
});
const LABELS = Uint8Array.from(atob(truth), (letter) => letter.charCodeAt(0));
const VOID = 255, PIXELS = side * side;
let weights = names.map(() => 1);

/** The label of every pixel: the class with the largest weighted sum, the first of equals. */
function labels(of) {
  const found = new Uint8Array(PIXELS), best = new Float64Array(PIXELS).fill(-Infinity);
  classes.forEach((_, c) => {
    for (let p = 0; p < PIXELS; p++) {
      let sum = 0;
      for (let i = 0; i < of.length; i++) sum += of[i] * SCORES[i][c * PIXELS + p];
      if (sum > best[p]) [best[p], found[p]] = [sum, c];
    }
  });
  return found;
}

/** Pixel accuracy and mean IU over the classes that are in the truth or in the labels, pixels of void left out. */
function measures(found) {
  let right = 0, counted = 0;
  const hit = classes.map(() => 0), either = classes.map(() => 0);
  for (let p = 0; p < PIXELS; p++) {
    if (LABELS[p] === VOID) continue;
    counted++;
    either[found[p]]++;
    if (found[p] === LABELS[p]) { right++; hit[found[p]]++; } else either[LABELS[p]]++;
  }
  const there = either.map((count, c) => [hit[c], count]).filter(([, count]) => count);
  return { accuracy: right / counted, iu: there.reduce((sum, [a, b]) => sum + a / b, 0) / there.length };
}

function paint(id, found) {
  const canvas = $(id);
  Object.assign(canvas, { width: side, height: side });
  const context = canvas.getContext("2d"), image = context.createImageData(side, side);
  found.forEach((label, p) => image.data.set([...(label === VOID ? [255, 255, 255] : colours[label]), 255], 4 * p));
  context.putImageData(image, 0, 0);
}

function draw() {
  const found = labels(weights), { accuracy, iu } = measures(found);
  paint("fused", found);
  document.querySelectorAll("#sliders input").forEach((slider, i) => { slider.value = weights[i]; });
  $("measure").textContent = `pixel accuracy ${accuracy.toFixed(3)}, mean IU ${iu.toFixed(3)} on this scene`;
}

function row(tag, cells) {
  const made = document.createElement("tr");
  for (const text of cells) made.append(Object.assign(document.createElement(tag), { textContent: text }));
  return made;
}

/** The table of one pixel: what each map adds to the two classes with the largest sums. */
function table(y, x) {
  const at = (i, c) => (weights[i] * SCORES[i][c * PIXELS + y * side + x]) / 100;
  const sums = classes.map((_, c) => names.reduce((sum, _, i) => sum + at(i, c), 0));
  const [first, second] = [...sums.keys()].sort((a, b) => sums[b] - sums[a] || a - b);
  $("pixel").tHead.replaceChildren(row("th", ["map", classes[first], classes[second], "difference"]));
  const shown = (a, b) => [a.toFixed(2), b.toFixed(2), (a - b).toFixed(2)];
  $("pixel").tBodies[0].replaceChildren(
    ...names.map((name, i) => row("td", [name, ...shown(at(i, first), at(i, second))])),
    row("th", ["sum", ...shown(sums[first], sums[second])]),
  );
  $("pixel").caption.textContent = `Row ${y}, column ${x} of ${side}: ${classes[first]} before ${classes[second]}.`;
}

names.forEach((name, i) => {
  const label = Object.assign(document.createElement("label"), { textContent: `${name} ` });
  const slider = Object.assign(document.createElement("input"), { type: "range", min: 0, max: 2, step: 0.05, value: 1 });
  slider.addEventListener("input", () => { weights[i] = Number(slider.value); draw(); });
  label.append(slider);
  $("sliders").append(label);
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: `${32 >> i}s: ${names.slice(0, i + 1).join(" + ")}` });
  button.addEventListener("click", () => { weights = names.map((_, j) => Number(j <= i)); draw(); });
  $("presets").append(button);
});
for (const id of ["scene", "truth", "fused"]) {
  for (const name of ["pointerdown", "pointermove"]) $(id).addEventListener(name, (event) => {
    const box = $(id).getBoundingClientRect(), place = (at, size) => Math.min(side - 1, Math.max(0, Math.floor((at / size) * side)));
    table(place(event.clientY - box.top, box.height), place(event.clientX - box.left, box.width));
  });
}
$("scene").src = FUSION.scene;
$("legend").append(...classes.flatMap((name, c) => {
  const [key, both] = [document.createElement("span"), document.createElement("span")];
  key.className = "key";
  key.style.background = `rgb(${colours[c]})`;
  both.className = "together";
  both.append(key, ` ${name}`);
  return [both, " "];
}));
paint("truth", LABELS);
draw();
