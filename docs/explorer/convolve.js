/* The arithmetic of the pages about kernels, on square maps given as arrays of rows. The tests compare every function
   here with minifcn.ops. */
"use strict";

/** The side of the output, or a sentence that says why there is none. */
function outSide({ kind, n, k, stride, padding, dilation }) {
  const extent = dilation * (k - 1) + 1;
  if (kind === "transposed") {
    const out = (n - 1) * stride + extent - 2 * padding;
    return out >= 1 ? out : `the padding of ${padding} cuts away the whole output`;
  }
  const room = n + 2 * padding - extent;
  return room >= 0 ? Math.floor(room / stride) + 1 : `a kernel of extent ${extent} does not fit into ${n} cells with padding ${padding}`;
}

function map(side, value) {
  return Array.from({ length: side }, (_, y) => Array.from({ length: side }, (_, x) => value(y, x)));
}

/** Every product of the op: the input cell, the tap of the kernel, and the output cell that it is added to. */
function* products({ kind, n, k, stride, padding, dilation }) {
  const large = kind === "transposed" ? outSide({ kind, n, k, stride, padding, dilation }) : n;
  const small = kind === "transposed" ? n : outSide({ kind, n, k, stride, padding, dilation });
  for (let i = 0; i < small; i++) for (let j = 0; j < small; j++) for (let u = 0; u < k; u++) for (let v = 0; v < k; v++) {
    const [y, x] = [i * stride - padding + u * dilation, j * stride - padding + v * dilation];
    if (y < 0 || x < 0 || y >= large || x >= large) continue;
    const [there, here] = [[y, x], [i, j]];
    yield kind === "transposed" ? { from: here, tap: [u, v], to: there } : { from: there, tap: [u, v], to: here };
  }
}

/** y of the op, and how many products each of its cells is the sum of. */
function apply(options, image, weights) {
  const side = outSide(options), y = map(side, () => 0), counts = map(side, () => 0);
  for (const { from, tap, to } of products(options)) {
    y[to[0]][to[1]] += image[from[0]][from[1]] * weights[tap[0]][tap[1]];
    counts[to[0]][to[1]] += 1;
  }
  return { y, counts };
}

/** A number in [-1, 1) that is always the same for its place. */
function noise(y, x) {
  const wave = Math.sin(12.9898 * (y + 1) + 78.233 * (x + 1)) * 43758.5453;
  return Math.round(20 * (wave - Math.floor(wave)) - 10) / 10;
}

const IMAGES = {
  "a spot": (n) => map(n, (y, x) => (y === n >> 1 && x === n >> 1 ? 1 : 0)),
  "all ones": (n) => map(n, () => 1),
  "an edge": (n) => map(n, (_, x) => (x < n / 2 ? 0 : 1)),
  "a slope": (n) => map(n, (y, x) => (y + x) / 2),
  "noise": (n) => map(n, noise),
};
const WEIGHTS = {
  "ones": (k) => map(k, () => 1),
  "a mean": (k) => map(k, () => 1 / (k * k)),
  "left minus right": (k) => map(k, (_, x) => Math.sign(k - 1 - 2 * x)),
  "bilinear": (k) => map(k, (y, x) => tent(k, y) * tent(k, x)),
  "noise": (k) => map(k, (y, x) => noise(y + 20, x + 20)),
};

/** One axis of the bilinear kernel that an FCN upsamples with. */
function tent(k, i) {
  const f = Math.ceil(k / 2);
  return 1 - Math.abs(i - (k - 1) / 2) / f;
}
