// The network of a run in a browser: images are prepared as predict.py prepares them, and answered here.
"use strict";
const place = (id) => document.getElementById(id);
const facts = JSON.parse(place("facts").textContent);
const [HEIGHT, WIDTH] = facts.size;

/** The bytes of a block of the page: gzip in base64. */
async function unpacked(id) {
  const text = atob(place(id).textContent), packed = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Rounds as Python does: halves to the even number. */
function rounded(number) {
  const near = Math.round(number);
  return near - number === 0.5 && near % 2 ? near - 1 : near;
}

/** The height and width that an image is scaled to before it is cut or padded. */
function scaledSize(given) {
  if (facts.fitting === "stretch" || (given[0] === HEIGHT && given[1] === WIDTH)) return [HEIGHT, WIDTH];
  const ratios = [HEIGHT / given[0], WIDTH / given[1]];
  const ratio = facts.fitting === "cover" ? Math.max(...ratios) : Math.min(1, ...ratios);
  return given.map((side) => Math.max(1, rounded(side * ratio)));
}

/** Lines of values brought to another length by Pillow's bilinear filter, which averages where it shrinks. */
function resampled(values, count, from, to, step, between) {
  const found = new Float32Array((values.length / from) * to), scale = from / to, reach = Math.max(1, scale);
  for (let at = 0; at < to; at++) {
    const centre = (at + 0.5) * scale, first = Math.max(0, Math.floor(centre - reach + 0.5));
    const last = Math.min(from, Math.floor(centre + reach + 0.5)), shares = [];
    for (let i = first; i < last; i++) shares.push(Math.max(0, 1 - Math.abs((i - centre + 0.5) / reach)));
    const whole = shares.reduce((sum, share) => sum + share, 0);
    for (let line = 0; line < count; line++) {
      const [old, made] = between(line);
      let sum = 0;
      shares.forEach((share, i) => { sum += share * values[old + (first + i) * step]; });
      found[made + at * step] = Math.min(255, Math.max(0, Math.floor(sum / whole + 0.5)));
    }
  }
  return found;
}

/** One channel, rows after rows, scaled to a height and width. */
function scaledChannel(values, [height, width], [high, wide]) {
  const rows = resampled(values, height, width, wide, 1, (line) => [line * width, line * wide]);
  return resampled(rows, wide, height, high, wide, (column) => [column, column]);
}

/** An image as the network takes it, channels × height × width from 0 to 255, and its own height and width. */
async function prepared(file) {
  const image = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  const canvas = document.createElement("canvas"), size = [image.height, image.width], scaled = scaledSize(size);
  [canvas.height, canvas.width] = size;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, size[1], size[0]);
  pen.drawImage(image, 0, 0);
  const colours = pen.getImageData(0, 0, size[1], size[0]).data, pixels = size[0] * size[1];
  const top = Math.floor((scaled[0] - HEIGHT) / 2), left = Math.floor((scaled[1] - WIDTH) / 2);
  const found = new Float32Array(facts.channels * HEIGHT * WIDTH);
  for (let channel = 0; channel < facts.channels; channel++) {
    const values = new Float32Array(pixels);
    for (let at = 0; at < pixels; at++) {
      const [red, green, blue] = colours.subarray(4 * at, 4 * at + 3);
      const grey = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16;
      values[at] = facts.channels === 1 ? grey : colours[4 * at + channel];
    }
    const same = scaled[0] === size[0] && scaled[1] === size[1];
    const fitted = same ? values : scaledChannel(values, size, scaled);
    for (let y = 0; y < HEIGHT; y++)
      for (let x = 0; x < WIDTH; x++) {
        const row = y + top, column = x + left;
        if (row >= 0 && row < scaled[0] && column >= 0 && column < scaled[1])
          found[(channel * HEIGHT + y) * WIDTH + x] = fitted[row * scaled[1] + column];
      }
  }
  return { pixels: found, canvas, size, scaled, top, left };
}

function softmax(logits) {
  const most = Math.max(...logits), odds = logits.map((logit) => Math.exp(logit - most));
  const whole = odds.reduce((sum, one) => sum + one, 0);
  return odds.map((one) => one / whole);
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const colour = (label) => `rgb(${facts.shades[label].join(",")})`;

function line(text, label) {
  const made = document.createElement("li");
  if (label !== undefined) {
    const mark = document.createElement("i");
    mark.style.background = colour(label);
    made.append(mark);
  }
  made.append(text);
  return made;
}

/** The most probable classes. */
function classesOf(logits) {
  const odds = softmax([...logits]), order = odds.map((_, at) => at).sort((a, b) => odds[b] - odds[a]);
  return order.slice(0, 5).map((at) => line(`${facts.classes[at]} ${percent(odds[at])}`));
}

/** The mask laid over the image, and the share of each class in it. */
function maskOf(logits, seen) {
  const each = HEIGHT * WIDTH, counts = facts.classes.map(() => 0), layer = new ImageData(WIDTH, HEIGHT);
  for (let at = 0; at < each; at++) {
    let best = 0;
    for (let label = 1; label < counts.length; label++)
      if (logits[label * each + at] > logits[best * each + at]) best = label;
    counts[best]++;
    layer.data.set([...facts.shades[best], 150], 4 * at);
  }
  const small = document.createElement("canvas");
  [small.height, small.width] = [HEIGHT, WIDTH];
  small.getContext("2d").putImageData(layer, 0, 0);
  const pen = seen.canvas.getContext("2d"), [y, x] = [seen.size[0] / seen.scaled[0], seen.size[1] / seen.scaled[1]];
  pen.imageSmoothingEnabled = false;
  pen.drawImage(small, seen.left * x, seen.top * y, WIDTH * x, HEIGHT * y);
  const order = counts.map((_, at) => at).filter((at) => counts[at]).sort((a, b) => counts[b] - counts[a]);
  return order.map((at) => line(`${facts.classes[at]} ${percent(counts[at] / each)}`, at));
}

function overlap(one, other) {
  const wide = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const high = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  const shared = Math.max(0, wide) * Math.max(0, high), area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return shared / Math.max(area(one) + area(other) - shared, 1e-9);
}

/** The boxes drawn, of each class those alone that no surer one overlaps. */
function boxesOf(answer, seen) {
  const each = 4 + facts.classes.length, found = [];
  facts.classes.forEach((_, label) => {
    let left = [];
    for (let at = 0; at < answer.length; at += each) {
      const odds = answer[at + 4 + label];
      if (odds >= facts.least) left.push({ odds, label, box: [...answer.subarray(at, at + 4)] });
    }
    left.sort((a, b) => b.odds - a.odds);
    while (left.length) {
      const best = left.shift();
      found.push(best);
      left = left.filter((one) => overlap(best.box, one.box) <= facts.overlap);
    }
  });
  found.sort((a, b) => b.odds - a.odds);
  const pen = seen.canvas.getContext("2d"), [y, x] = [seen.size[0] / seen.scaled[0], seen.size[1] / seen.scaled[1]];
  pen.lineWidth = Math.max(2, seen.size[1] / 200);
  for (const { label, box } of found) {
    const [left, top] = [(box[0] + seen.left) * x, (box[1] + seen.top) * y];
    pen.strokeStyle = colour(label);
    pen.strokeRect(left, top, (box[2] - box[0]) * x, (box[3] - box[1]) * y);
  }
  const said = found.map(({ label, odds }) => line(`${facts.classes[label]} ${percent(odds)}`, label));
  return said.length ? said : [line(`nothing from a probability of ${facts.least} on`)];
}

const ANSWERS = { classification: classesOf, segmentation: maskOf, detection: boxesOf };

async function begun() {
  const source = new Blob([await unpacked("program")], { type: "text/javascript" });
  const ort = await import(URL.createObjectURL(source));
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = (await unpacked("machine")).buffer;
  return [ort, await ort.InferenceSession.create(await unpacked("network"), { executionProviders: ["wasm"] })];
}

async function answered([ort, session], file) {
  const figure = document.createElement("figure"), caption = document.createElement("figcaption");
  try {
    const seen = await prepared(file), images = new ort.Tensor("float32", seen.pixels, [1, facts.channels, HEIGHT, WIDTH]);
    const before = performance.now(), found = await session.run({ images });
    const took = performance.now() - before, list = document.createElement("ul");
    list.append(...ANSWERS[facts.task](found[session.outputNames[0]].data, seen));
    caption.append(`${file.name}, ${took.toFixed(1)} ms`, list);
    figure.append(seen.canvas, caption);
  } catch (fault) {
    caption.append(`${file.name}: no image that this browser can read (${fault.message})`);
    figure.append(caption);
  }
  place("answers").prepend(figure);
}

const ready = begun();
ready.then(() => { place("state").textContent = "Drop images here, or choose some. They stay in this browser."; },
  (fault) => { place("state").textContent = `This browser cannot run the network: ${fault.message}`; });

async function take(files) {
  const running = await ready;
  for (const file of files) await answered(running, file);
}

place("files").addEventListener("change", (event) => take(event.target.files));
for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
document.addEventListener("drop", (event) => take(event.dataTransfer.files));
