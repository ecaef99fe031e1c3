/* Where a cell of a feature map lies in the image: minifcn/geometry.py and minifcn/models/ladder.py once more, for the
   page. The rules and the sentences are theirs; tests/test_explorer.py compares both on random chains in a browser.
   Whole numbers are BigInt and positions fractions, so that "nearly aligned" does not exist here either. */
"use strict";

class GeometryError extends Error {} // windows that do not fit, grids that cannot be laid on each other
class UsageError extends Error {} // what was typed cannot be read

const MOST_LAYERS = 200;
const MOST_LETTERS = 8000;
const MOST_STRIDE = 4096n; // of a ladder: its check walks through as many sizes
const MOST_SEEN = 5000; // cells of one level that are drawn separately
const MOST_TAPS = 60000n; // of one level's windows together
const MOST_SEARCH = 20000n; // stride times layers of a ladder whose least padding is looked for

// ---- exact numbers ------------------------------------------------------------------------------------------------

const larger = (a, b) => (a > b ? a : b);
const smaller = (a, b) => (a < b ? a : b);

/** a // b as Python has it: rounded down, below zero as well. */
function floorDiv(a, b) {
  const quotient = a / b;
  return a % b !== 0n && a < 0n !== b < 0n ? quotient - 1n : quotient;
}

class Fraction {
  constructor(numerator, denominator = 1n) {
    let [a, b] = [numerator < 0n ? -numerator : numerator, denominator];
    while (b) [a, b] = [b, a % b];
    this.n = numerator / (a || 1n);
    this.d = denominator / (a || 1n);
  }
  plus(other) { return new Fraction(this.n * other.d + other.n * this.d, this.d * other.d); }
  minus(other) { return new Fraction(this.n * other.d - other.n * this.d, this.d * other.d); }
  times(other) { return new Fraction(this.n * other.n, this.d * other.d); }
  over(other) { // of a positive number
    return new Fraction(this.n * other.d, this.d * other.n);
  }
  equals(other) { return this.n === other.n && this.d === other.d; }
  less(other) { return this.n * other.d < other.n * this.d; }
  toString() { return this.d === 1n ? `${this.n}` : `${this.n}/${this.d}`; }
  toNumber() { return Number(this.n) / Number(this.d); }
}

const whole = (n) => new Fraction(BigInt(n));

// ---- one window, one grid -----------------------------------------------------------------------------------------

/** A window of `kernel` cells, `dilation` apart, moved by `stride` over an axis padded by `padding` on both sides. */
class Layer {
  constructor({ name = "", kernel = 1, stride = 1, padding = 0, dilation = 1, ceil = false, transpose = false, outputPadding = 0 }) {
    this.name = name;
    this.kernel = BigInt(kernel);
    this.stride = BigInt(stride);
    this.padding = BigInt(padding);
    this.dilation = BigInt(dilation);
    this.ceil = ceil;
    this.transpose = transpose;
    this.outputPadding = BigInt(outputPadding);
  }

  get extent() { return this.dilation * (this.kernel - 1n) + 1n; }

  /** Cells out of `size` cells, before Caffe's rule drops a last window that would start in the padding. */
  counted(size) {
    if (this.transpose) return (size - 1n) * this.stride + this.extent - 2n * this.padding + this.outputPadding;
    const room = size + 2n * this.padding - this.extent;
    return this.ceil ? larger(-floorDiv(-room, this.stride) + 1n, 1n) : floorDiv(room, this.stride) + 1n;
  }

  outSize(size) {
    let out = this.counted(size);
    if (this.ceil && !this.transpose && (out - 1n) * this.stride >= size + this.padding) out -= 1n;
    if (size < 1n || out < 1n) {
      throw new GeometryError(
        `a window of ${this.extent} (kernel ${this.kernel}, dilation ${this.dilation}) does not fit into ` +
          `${size} + 2*${this.padding} cells: enlarge the image or the padding`,
      );
    }
    return out;
  }

  /** What happens at the far end: by how many cells the last window hangs over, how many cells no window sees, and
      whether a window was dropped. Nothing of it happens to a transposed layer. */
  end(size) {
    if (this.transpose) return { over: 0n, unseen: 0n, dropped: false };
    const out = this.outSize(size);
    const reached = (out - 1n) * this.stride + this.extent;
    return {
      over: larger(reached - (size + 2n * this.padding), 0n),
      unseen: smaller(larger(size + this.padding - reached, 0n), size),
      dropped: this.counted(size) > out,
    };
  }

  /** The input cells behind output cell `j`, as they come; those below 0 or from `size` on are padding. */
  inputs(j) {
    const cells = [];
    for (let tap = 0n; tap < this.kernel; tap++) {
      if (!this.transpose) cells.push(j * this.stride - this.padding + this.dilation * tap);
      else {
        const from = j + this.padding - this.dilation * tap; // outputs i*s - padding + dilation*tap are i's
        if (from % this.stride === 0n) cells.push(from / this.stride);
      }
    }
    return cells;
  }
}

/** The cells of a feature map in pixels of the image; `new Grid()` is the image itself. */
class Grid {
  constructor(stride = whole(1), start = whole(0), field = whole(1)) {
    Object.assign(this, { stride, start, field });
  }

  static of(layers) { return layers.reduce((grid, layer) => grid.through(layer), new Grid()); }

  at(cell) { return this.start.plus(this.stride.times(whole(cell))); }

  through(layer) {
    const shift = new Fraction(layer.extent - 1n - 2n * layer.padding, 2n);
    if (layer.transpose) { // the same relation read the other way: output j sits at input (j - shift) / s
      const stride = this.stride.over(whole(layer.stride));
      const reach = -floorDiv(-layer.extent, layer.stride); // inputs that can reach one output
      return new Grid(stride, this.start.minus(stride.times(shift)), this.field.plus(this.stride.times(whole(reach - 1n))));
    }
    return new Grid(
      this.stride.times(whole(layer.stride)),
      this.start.plus(this.stride.times(shift)),
      this.field.plus(this.stride.times(whole(layer.extent - 1n))),
    );
  }

  cropped(at) { return new Grid(this.stride, this.at(at), this.field); }

  /** How many of this grid's first cells to cut so that it starts where `other` starts; negative: cut `other`. */
  offset(other, name, otherName) {
    if (!this.stride.equals(other.stride)) {
      throw new GeometryError(
        `${name} has a cell every ${this.stride} pixels and ${otherName} every ${other.stride}: ` +
          "only maps of equal stride can be laid on each other",
      );
    }
    const offset = other.start.minus(this.start).over(this.stride);
    if (offset.d !== 1n) {
      throw new GeometryError(
        `${name} starts at pixel ${this.start} and ${otherName} at ${other.start}, both with stride ` +
          `${this.stride}: the crop offset (${other.start} - ${this.start}) / ${this.stride} = ${offset} is not ` +
          "whole; a kernel one larger or smaller in the upsampling shifts it by half a cell",
      );
    }
    return offset.n;
  }

  /** `offset` where only this map may be cut. */
  cropOffset(other, name, otherName) {
    const offset = this.offset(other, name, otherName);
    if (offset < 0n) {
      throw new GeometryError(
        `${name} starts at pixel ${this.start}, after ${otherName} at ${other.start}: the crop offset ` +
          `(${other.start} - ${this.start}) / ${this.stride} = ${offset} is negative; ` +
          "more padding in the trunk moves it up",
      );
    }
    return offset;
  }
}

const outSize = (layers, size) => layers.reduce((n, layer) => layer.outSize(n), size);

/** The cells of every level behind cell `cell` of the last of `layers`, the image's own first: for each level the cells
    it really sees, and how many of the window's are padding there. `null` where there are too many to draw separately. */
function seen(layers, size, cell) {
  const sizes = [size];
  for (const layer of layers) sizes.push(layer.outSize(sizes.at(-1)));
  const levels = [{ cells: [cell], padding: [] }];
  for (let k = layers.length - 1; k >= 0; k--) {
    const above = levels[0];
    if (!above || BigInt(above.cells.length) * layers[k].kernel > MOST_TAPS) {
      levels.unshift(null);
      continue;
    }
    const all = new Set(above.cells.flatMap((j) => layers[k].inputs(j)));
    const sorted = [...all].sort((a, b) => (a < b ? -1 : 1));
    const level = { cells: sorted.filter((i) => i >= 0n && i < sizes[k]), padding: sorted.filter((i) => i < 0n || i >= sizes[k]) };
    levels.unshift(sorted.length > MOST_SEEN ? null : level);
  }
  return levels;
}

// ---- a chain as text ----------------------------------------------------------------------------------------------

const LAYER = /^(?:([A-Za-z_]\w*)=)?(\d{1,5}(?:\/\d{1,5}){0,3})(c|t(?:\+(\d{1,5}))?)?$/;

/** `name=kernel/stride/padding/dilation`, `c` behind it for ceil, `t` for transposed, `t+1` with an output padding. */
function readChain(text) {
  const words = text.trim().split(/\s+/).filter(Boolean);
  if (!words.length) throw new UsageError("found no layer; expected a chain such as conv1=3/1/1 pool1=2/2c");
  if (words.length > MOST_LAYERS || text.length > MOST_LETTERS) {
    throw new UsageError(
      `the chain has ${words.length} layers and ${text.length} letters; expected at most ${MOST_LAYERS} and ${MOST_LETTERS}`,
    );
  }
  const names = new Set();
  return words.map((word, i) => {
    const match = LAYER.exec(word);
    const [kernel, stride = 1, padding = 0, dilation = 1] = match ? match[2].split("/").map(Number) : [0];
    const name = match?.[1] || `layer${i + 1}`;
    if (!kernel || !stride || !dilation || names.has(name)) {
      throw new UsageError(
        `layer '${word.slice(0, 40)}' cannot be read; expected name=kernel/stride/padding/dilation, each name once, ` +
          "such as conv1=3/1/1, pool1=2/2c or up=4/2t",
      );
    }
    names.add(name);
    const mode = match[3] || "";
    return new Layer({
      name, kernel, stride, padding, dilation, ceil: mode === "c", transpose: mode[0] === "t", outputPadding: match[4] || 0,
    });
  });
}

function writeLayer(layer) {
  const numbers = [layer.kernel, layer.stride, layer.padding, layer.dilation].map(String);
  const usual = ["", "1", "0", "1"];
  while (numbers.length > 1 && numbers.at(-1) === usual[numbers.length - 1]) numbers.pop();
  const more = layer.outputPadding ? `+${layer.outputPadding}` : "";
  return `${layer.name}=${numbers.join("/")}${layer.transpose ? `t${more}` : layer.ceil ? "c" : ""}`;
}

// ---- a ladder: from the last map back up to the image -------------------------------------------------------------

const quoted = (text) => (text.includes("'") && !text.includes('"') ? `"${text}"` : `'${text.replaceAll("'", "\\'")}'`);
const tuple = (items) => `(${items.map(quoted).join(", ")}${items.length === 1 ? "," : ""})`;

/** The rungs from the last of `layers` up to the image over `skips`, coarse to fine, as minifcn's `Ladder`.
    `padded` pads each upsampling by (kernel - stride)/2; `kernel` forces the last one's. */
class Ladder {
  constructor(layers, skips, { padded = false, kernel = 0 } = {}) {
    Object.assign(this, { padded, kernel: BigInt(kernel), rungs: [], paths: new Map(), grids: new Map() });
    layers.forEach((layer, i) => this.paths.set(layer.name, layers.slice(0, i + 1)));
    for (const [name, path] of this.paths) this.grids.set(name, Grid.of(path));
    this.last = layers.at(-1).name;
    let grid = this.grids.get(this.last);
    if (grid.stride.d !== 1n || grid.stride.n > MOST_STRIDE) {
      throw new GeometryError(
        `${this.last} has a cell every ${grid.stride} pixels: a ladder climbs here from whole strides up to ${MOST_STRIDE}`,
      );
    }
    const finer = this.stridesOnTheWay(skips);
    let below = this.last;
    [...skips, ""].forEach((skip, i) => {
      const factor = grid.stride.over(finer[i]).n;
      const [rung, next] = this.rung(this.nameOf(below, skip, factor), skip, factor, grid);
      this.rungs.push(rung);
      [grid, below] = [next, skip];
    });
  }

  stridesOnTheWay(skips) {
    const top = this.grids.get(this.last).stride;
    const usable = new Map([...this.grids].filter(([, grid]) => grid.stride.less(top)).map(([name, grid]) => [name, grid.stride]));
    const known = [...usable].map(([name, stride]) => `${name} (stride ${stride})`).join(", ");
    let stride = top;
    for (const skip of skips) {
      const found = usable.get(skip);
      if (!found) throw new UsageError(`skip ${quoted(skip)} is not an output of this trunk finer than ${this.last}: it has ${known}`);
      if (!found.less(stride) || stride.over(found).d !== 1n) {
        throw new UsageError(
          `skips ${tuple(skips)} must go from coarse to fine by whole factors, from ${this.last} ` +
            `(stride ${top}) on; this trunk has ${known}`,
        );
      }
      stride = found;
    }
    return [...skips.map((skip) => usable.get(skip)), whole(1)];
  }

  nameOf(below, skip, factor) {
    if (below === this.last && !skip) return "upscore";
    if (!skip && factor > 2n) return `upscore${factor}`;
    return below === this.last && factor === 2n ? "upscore2" : `upscore_${below}`;
  }

  /** By the bilinear kernel, 2s wide or else 2s - 1, that lands the score on the grid it is to meet. */
  rung(name, skip, factor, grid) {
    const target = skip ? this.grids.get(skip) : new Grid();
    const forced = !skip && this.kernel;
    const layers = (forced ? [this.kernel] : [2n * factor, 2n * factor - 1n]).map(
      (kernel) => new Layer({ name, kernel, stride: factor, padding: this.padded && !forced ? (kernel - factor) / 2n : 0n, transpose: true }),
    );
    const lands = (layer) => grid.through(layer).start.minus(target.start).over(target.stride).d === 1n;
    const layer = layers.find(lands) || layers[0];
    return this.aligned(name, skip, layer, grid.through(layer));
  }

  aligned(name, skip, layer, score) {
    const rung = (at, cut) => ({ name, skip, layer, at, cut, stride: score.stride });
    if (!skip) {
      const at = score.cropOffset(new Grid(), name, "the image");
      return [rung(at, "score"), score.cropped(at)];
    }
    const at = this.grids.get(skip).offset(score, skip, name);
    if (at > 0n) return [rung(at, "skip"), score];
    if (at < 0n) return [rung(-at, "score"), score.cropped(-at)];
    // Equal starts: the one that is larger at the far end is cut, and ceil pooling decides which one that is.
    return [rung(0n, this.skipIsLarger(skip, layer) ? "skip" : "score"), score];
  }

  skipIsLarger(skip, layer) {
    const stride = this.grids.get(this.last).stride.n;
    for (let size = stride; size < 2n * stride; size++) {
      let score;
      try {
        score = layer.outSize(this.climb(size).at(-1).kept);
      } catch (fault) {
        if (fault instanceof GeometryError) continue;
        throw fault;
      }
      if (outSize(this.paths.get(skip), size) < score) return false;
    }
    return true;
  }

  /** The sizes on the way up from an image of `size`: for each rung its score, the map it meets, and what is kept. */
  climb(size) {
    const way = [{ score: null, like: null, kept: outSize(this.paths.get(this.last), size) }];
    for (const rung of this.rungs) {
      const score = rung.layer.outSize(way.at(-1).kept);
      const like = rung.skip ? outSize(this.paths.get(rung.skip), size) : size;
      const [large, kept] = rung.cut === "skip" ? [like, score] : [score, like];
      if (rung.at + kept > large) {
        throw new GeometryError(
          `an image of ${size} pixels gives ${rung.name} a score of ${score} and ${rung.skip || "the image"} ` +
            `${like} cells: cropping the ${rung.cut} at ${rung.at} leaves too few; use more padding`,
        );
      }
      way.push({ score, like, kept });
    }
    return way;
  }

  fits(size) {
    try {
      return this.climb(size).at(-1).kept === size;
    } catch (fault) {
      if (fault instanceof GeometryError) return false;
      throw fault;
    }
  }
}

/** The smallest padding of the first layer with which images of every size come out whole, as minifcn's `safe_padding`. */
function safePadding(layers, skips, options = {}) {
  if (larger(Grid.of(layers).stride.n, 1n) * BigInt(layers.length) > MOST_SEARCH) {
    throw new UsageError("this ladder is too tall to look for its least padding here; `minifcn design` does it");
  }
  for (let padding = 0; padding < 1024; padding++) {
    const padded = [new Layer({ ...layers[0], padding }), ...layers.slice(1)];
    let ladder;
    try {
      ladder = new Ladder(padded, skips, options);
    } catch (fault) {
      if (fault instanceof GeometryError) continue;
      throw fault;
    }
    const { stride, field } = ladder.grids.get(ladder.last);
    const safe = (from) => {
      for (let size = from; size < from + stride.n; size++) if (!ladder.fits(size)) return false;
      return true;
    };
    if (safe(1n) && safe(field.n / field.d)) return padding;
  }
  throw new GeometryError(`no padding below 1024 lets the skips ${tuple(skips)} fit at every size`);
}

// ---- all of it at once --------------------------------------------------------------------------------------------

/** What the page shows for `{chain, size, skips, ladder, padded, kernel}`, as text where it is a number: every layer's
    size (null from the first that does not fit on), grid and far end; the ladder, or why there is none. */
function compute(state) {
  const layers = readChain(state.chain);
  if (!/^\d{1,5}$/.test(`${state.size}`) || Number(state.size) < 1) {
    throw new UsageError(`the input size is ${quoted(`${state.size}`)}; expected a whole number from 1 to 99999`);
  }
  const size = BigInt(state.size);
  let [grid, n, error] = [new Grid(), size, null];
  const rows = layers.map((layer) => {
    grid = grid.through(layer);
    const row = { name: layer.name, stride: `${grid.stride}`, start: `${grid.start}`, field: `${grid.field}`, size: null, error: null };
    if (error === null) {
      try {
        const end = layer.end(n);
        n = layer.outSize(n);
        Object.assign(row, { size: `${n}`, over: `${end.over}`, unseen: `${end.unseen}`, dropped: end.dropped });
      } catch (fault) {
        if (!(fault instanceof GeometryError)) throw fault;
        row.error = error = fault.message;
      }
    }
    return row;
  });
  return { layers: rows, error, ladder: state.ladder ? computeLadder(layers, size, state) : null };
}

function computeLadder(layers, size, state) {
  const skips = (state.skips || "").split(",").map((skip) => skip.trim()).filter(Boolean);
  if (!/^\d{0,5}$/.test(`${state.kernel || ""}`)) {
    return { rungs: [], error: `the last kernel is ${quoted(`${state.kernel}`)}; expected a whole number, or nothing`, sizes: null, out: null };
  }
  let ladder;
  try {
    ladder = new Ladder(layers, skips, { padded: Boolean(state.padded), kernel: state.kernel || 0 });
  } catch (fault) {
    if (!(fault instanceof GeometryError || fault instanceof UsageError)) throw fault;
    return { rungs: [], error: fault.message, sizes: null, out: null };
  }
  const rungs = ladder.rungs.map(({ name, skip, layer, at, cut, stride }) => ({
    name, skip, at: `${at}`, cut, stride: `${stride}`, kernel: `${layer.kernel}`, factor: `${layer.stride}`, padding: `${layer.padding}`,
  }));
  try {
    const way = ladder.climb(size).slice(1);
    const sizes = way.map(({ score, like, kept }) => ({ score: `${score}`, like: `${like}`, kept: `${kept}` }));
    return { rungs, error: null, sizes, out: sizes.at(-1).kept };
  } catch (fault) {
    if (!(fault instanceof GeometryError)) throw fault;
    return { rungs, error: fault.message, sizes: null, out: null };
  }
}

// ---- the nets of the paper ----------------------------------------------------------------------------------------

function vgg(padding) {
  const blocks = [2, 2, 3, 3, 3].map((depth, block) => [
    ...Array.from({ length: depth }, (_, i) => `conv${block + 1}_${i + 1}=3/1/${block || i ? 1 : padding}`),
    `pool${block + 1}=2/2c`,
  ]);
  return [...blocks.flat(), "fc6=7", "fc7=1"].join(" ");
}

const alexnet = (padding) =>
  `conv1=11/4/${padding} pool1=3/2c conv2=5/1/2 pool2=3/2c conv3=3/1/1 conv4=3/1/1 conv5=3/1/1 pool5=3/2c fc6=6 fc7=1`;

const fires = (from, to) =>
  Array.from({ length: to - from + 1 }, (_, i) => `fire${from + i}_squeeze=1 fire${from + i}_expand=3/1/1`).join(" ");

const PRESETS = {
  "first-step": { title: "A first step", chain: "conv1=3/1/1 pool1=2/2c conv2=3/1/1 pool2=2/2c", size: 11 },
  "half-pixels": { title: "Half pixels: 2x2 pools", chain: "pool1=2/2 pool2=2/2 pool3=2/2", size: 16 },
  "dropped-window": { title: "Caffe's dropped window", chain: "pool=2/2/1c", size: 3 },
  atrous: { title: "À trous: dilation 1, 2, 4", chain: "conv1=3/1/1 conv2=3/1/2/2 conv3=3/1/4/4", size: 24 },
  deconvolution: { title: "Down and up again", chain: "conv=3/1/1 pool=2/2 up=4/2/1t", size: 12 },
  "vgg-16": { title: "VGG-16", chain: vgg(1), size: 224 },
  alexnet: { title: "AlexNet (CaffeNet)", chain: alexnet(0), size: 227 },
  squeezenet: {
    title: "SqueezeNet 1.0",
    chain: `conv1=7/2 pool1=3/2c ${fires(2, 4)} pool4=3/2c ${fires(5, 8)} pool8=3/2c ${fires(9, 9)}`,
    size: 227,
  },
  "fcn-32s": { title: "FCN-32s", chain: vgg(100), size: 500, ladder: true },
  "fcn-16s": { title: "FCN-16s", chain: vgg(100), size: 500, ladder: true, skips: "pool4" },
  "fcn-8s": { title: "FCN-8s", chain: vgg(100), size: 500, ladder: true, skips: "pool4,pool3" },
  "fcn-alexnet": { title: "FCN-AlexNet", chain: alexnet(100), size: 500, ladder: true },
  "fcn-alexnet-64": { title: "FCN-AlexNet with kernel 64", chain: alexnet(100), size: 500, ladder: true, kernel: "64" },
};
