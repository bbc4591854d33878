"use strict";
// Reads the controls, calls explore() and draws what it returns.

const FRAME = { w: [3.8, 6.6], b: [-3.8, -0.8], columns: 140, rows: 100 };
// log10 of the rounding error of float32: beside a gradient of size 1, smaller ones are lost in a sum.
const ROUNDING = Math.log10(2 ** -24);
const CELLS = { tanh: "tanh", relu: "relu", linear: "linear", lstm: "LSTM" };
const PRESETS = {
  nothing: { cell: "linear", gain: 0.9, length: 200 },
  exploding: { cell: "linear", gain: 1.1, length: 200 },
  forget: { cell: "lstm", gain: 1, forgetBias: 0, length: 100 },
  cliff: { cell: "tanh", gain: 1, length: 50, threshold: 0 },
};

const $ = (id) => document.getElementById(id);
const form = $("controls");
let shown = null;

function element(parent, tag, attributes = {}, text = null) {
  const made = document.createElementNS(parent.namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== null) made.textContent = text;
  parent.append(made);
  return made;
}

const signed = (number) => number.replaceAll("-", "−");
const one = (value) => signed((Math.abs(value) < 0.05 ? 0 : value).toFixed(1));
const power = (x) => (x === -Infinity ? "0" : `10^${one(x)}`);

// "10" with a raised exponent, in HTML and in SVG.
function powerInto(parent, x, exponent = one(x)) {
  if (x === -Infinity) return void parent.append("0");
  parent.append("10");
  const svg = parent.namespaceURI.endsWith("svg");
  element(parent, svg ? "tspan" : "sup", svg ? { dy: "-0.45em", "font-size": "75%" } : {}, exponent);
}

function readSetting() {
  return {
    cell: form.elements.cell.value,
    draw: Number(form.elements.draw.value),
    gain: Number($("gain").value),
    forgetBias: Number($("forgetBias").value),
    length: Number($("length").value),
    threshold: 10 ** Number($("threshold").value),
  };
}

function showSetting(setting) {
  const lstm = setting.cell === "lstm";
  const gate = sigmoid(setting.forgetBias);
  $("forgetBias").disabled = !lstm;
  const values = {
    gain: `× ${setting.gain.toFixed(2)}`,
    forgetBias: lstm ? `${one(setting.forgetBias)}: gate near ${gate.toFixed(2)}` : "only the LSTM has one",
    length: `${setting.length} steps`,
    threshold: setting.threshold >= 10 ? setting.threshold.toFixed(0) : setting.threshold.toPrecision(2),
  };
  for (const [name, text] of Object.entries(values)) {
    $(`${name}Value`).textContent = text;
    $(name).setAttribute("aria-valuetext", text);
  }
}

// What is seen, as pieces of a sentence: texts, and numbers x that stand for 10^x.
function sentence(setting, result) {
  const name = setting.cell === "lstm" ? "c" : "h";
  const profile = result.profile[name];
  const lags = profile.length - 1;
  const change = profile[lags] - profile[0];
  const steps = `${lags} ${lags === 1 ? "step" : "steps"}`;
  if (profile[lags] === -Infinity) {
    const last = profile.findIndex((value) => value === -Infinity) - 1;
    return [`Exactly nothing arrives: further back than ${last} steps the gradient is 0, every path is shut.`];
  }
  const rate = 10 ** (change / lags);
  const along = setting.cell === "lstm" ? "Along the cell state c, the gradient" : "The gradient";
  if (Math.abs(change) < 0.3) return [`${along} keeps its size: after ${steps} `, change, " of it arrives."];
  const number = rate >= 100 || rate < 0.001 ? rate.toExponential(1) : rate.toPrecision(rate < 1 ? 2 : 3);
  const verb = change < 0 ? "shrinks" : "grows";
  const end = change < 0 ? " of it is left." : " times as much arrives.";
  return [`${along} ${verb} by a factor of ${number} a step, on average; after ${steps} `, change, end];
}

function descentWords(result) {
  const left = result.free.findIndex(outside);
  const longest = Math.max(...result.free.map((point) => point.steepness));
  const losses = [result.free, result.clipped].map((path) => path[path.length - 1].loss.toPrecision(2));
  const free = left > 0 ? `leaves the frame at update ${left}` : "stays in the frame";
  return (
    `Without clipping the path ${free}; its longest gradient has length ${Number(longest.toPrecision(2))}. ` +
    `After ${result.free.length - 1} updates the loss is ${losses[0]} without and ${losses[1]} with clipping.`
  );
}

const outside = ({ w, b }) => w < FRAME.w[0] || w > FRAME.w[1] || b < FRAME.b[0] || b > FRAME.b[1];

let pending = 0;

function speak(pieces) {
  const visible = $("seen");
  visible.replaceChildren();
  for (const piece of pieces) typeof piece === "number" ? powerInto(visible, piece) : visible.append(piece);
  // A reader hears the end of a movement, not each of its steps.
  clearTimeout(pending);
  const words = pieces.map((piece) => (typeof piece === "number" ? `10 to the power ${one(piece)}` : piece)).join("");
  pending = setTimeout(() => ($("spoken").textContent = words), 500);
}

// An empty drawing as wide as its place on the page.
function canvasOf(id, height) {
  const svg = $(id);
  const width = svg.parentElement.clientWidth;
  const title = svg.querySelector("title");
  svg.replaceChildren(title);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("width", width);
  svg.setAttribute("height", height);
  return { svg, width, height };
}

// The time steps that the unfolded network shows: all of a short sequence, else some, evenly spaced.
function shownSteps(length, room) {
  const count = Math.min(length, room);
  return [...new Array(count).keys()].map((k) => 1 + Math.round((k * (length - 1)) / Math.max(count - 1, 1)));
}

// Width and opacity of an arrow that carries a gradient of 10^x.
const strength = (x) => ({
  width: x === -Infinity ? 1 : Math.max(1.2, Math.min(16, 6 + 1.1 * x)),
  opacity: x === -Infinity ? 0.12 : Math.max(0.28, Math.min(1, 1 + x / 12)),
});

function drawUnfolded(setting, result) {
  const lstm = setting.cell === "lstm";
  const rows = lstm ? ["c", "h"] : ["h"];
  const { svg, width, height } = canvasOf("unfolded", lstm ? 270 : 170);
  const steps = shownSteps(setting.length, Math.max(3, Math.min(9, Math.floor(width / 90))));
  const radius = width < 500 ? 17 : 20;
  const [left, right] = [radius + 4, width - radius - 44];
  const place = (k) => left + ((right - left) * k) / (steps.length - 1);
  const level = (row) => 58 + row * 100;
  const inputs = height - 14;
  steps.forEach((t, k) => {
    element(svg, "path", { class: "input", d: `M${place(k)} ${inputs - 14}V${level(rows.length - 1) + radius + 3}` });
    label(svg, place(k), inputs, "x", t, "small");
  });
  rows.forEach((state, row) => {
    const y = level(row);
    const byLag = result.profile[state];
    const arrow = (from, to, x, jump) => {
      const { width: thick, opacity } = strength(x);
      const head = 5 + thick;
      const kind = x > 0.5 ? "grown" : "faded";
      const line = { class: `gradient ${kind}`, opacity, "stroke-width": thick };
      element(svg, "path", { ...line, d: `M${from} ${y}H${to + head}` });
      const tip = `M${to} ${y}l${head} ${-head * 0.75}v${head * 1.5}z`;
      element(svg, "path", { class: `head ${kind}`, opacity, d: tip });
      const middle = (from + to) / 2;
      powerInto(element(svg, "text", { x: middle, y: y - 17, class: "number" }), x);
      if (jump > 1) element(svg, "text", { x: middle, y: y + 24, class: "small" }, `${jump} steps`);
    };
    steps.slice(1).forEach((t, k) => {
      const x = byLag[setting.length - steps[k]];
      arrow(place(k + 1) - radius - 2, place(k) + radius + 3, x, t - steps[k]);
    });
    steps.forEach((t, k) => {
      element(svg, "circle", { class: "state", cx: place(k), cy: y, r: radius });
      label(svg, place(k), y + 5, state, t, "name");
    });
    if (lstm && row === 1) {
      steps.forEach((_, k) => {
        element(svg, "path", { class: "input", d: `M${place(k)} ${level(0) + radius + 3}V${y - radius - 3}` });
      });
    }
    if (state === "h") {
      element(svg, "path", { class: "input", d: `M${place(steps.length - 1) + radius + 3} ${y}h14` });
      element(svg, "text", { x: width - 12, y: y + 5, class: "name" }, "L");
    }
  });
}

function label(svg, x, y, name, index, kind) {
  const text = element(svg, "text", { x, y, class: kind }, name);
  element(text, "tspan", { dy: "0.3em", "font-size": "75%" }, String(index));
}

// A round distance between about five lines.
function spacing(range) {
  const rough = range / 5;
  const decade = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * decade).find((step) => step >= rough);
}

function drawProfile(setting, result) {
  const { svg, width, height } = canvasOf("profile", 260);
  const [left, right, top, bottom] = [46, width - 12, 14, height - 40];
  const names = setting.cell === "lstm" ? ["c", "h"] : ["h"];
  const finite = names.flatMap((name) => result.profile[name].filter(Number.isFinite));
  const low = Math.min(-2, ...finite);
  const high = Math.max(1, ...finite);
  const longest = setting.length - 1;
  const across = (lag) => left + ((right - left) * lag) / longest;
  const up = (x) => bottom - ((bottom - top) * (x - low)) / (high - low);
  const step = Math.max(1, spacing(high - low));
  for (let x = Math.ceil(low / step) * step; x <= high; x += step) {
    element(svg, "path", { class: x === 0 ? "zero" : "grid", d: `M${left} ${up(x)}H${right}` });
    powerInto(element(svg, "text", { x: left - 22, y: up(x) + 4, class: "small" }), x, signed(String(Math.round(x))));
  }
  const apart = Math.max(1, spacing(longest));
  for (let lag = 0; lag <= longest; lag += apart) {
    element(svg, "text", { x: across(lag), y: bottom + 16, class: "small" }, String(lag));
  }
  element(svg, "text", { x: (left + right) / 2, y: height - 6, class: "small" }, "lag: steps back from the last one");
  if (low < ROUNDING) {
    element(svg, "path", { class: "rounding", d: `M${left} ${up(ROUNDING)}H${right}` });
    const words = width < 500 ? "below: lost in float32" : "below: lost when added to a gradient of size 1 in float32";
    // On the side where the line is not.
    const late = result.profile[names[0]].findIndex((x) => x < ROUNDING) > longest / 2;
    const side = late ? { x: left + 6, class: "small start" } : { x: right, class: "small end" };
    element(svg, "text", { ...side, y: up(ROUNDING) + 14 }, words);
  }
  for (const name of names) {
    const points = result.profile[name].flatMap((x, lag) => (Number.isFinite(x) ? [`${across(lag)},${up(x)}`] : []));
    element(svg, "polyline", { class: `line ${name}`, points: points.join(" ") });
    const first = points[Math.min(points.length - 1, Math.round(points.length * 0.12))].split(",").map(Number);
    const beside = name === "c" ? -9 : 18;
    if (names.length > 1) element(svg, "text", { x: first[0], y: first[1] + beside, class: `name ${name}` }, name);
  }
}

function drawEigenvalues(result) {
  const { svg, width } = canvasOf("eigenvalues", Math.min(320, $("eigenvalues").parentElement.clientWidth));
  const height = svg.viewBox.baseVal.height;
  const all = [...result.spectrum, ...result.stepSpectrum];
  const reach = 1.15 * Math.max(1.1, ...all.map((value) => Math.hypot(...value)));
  const unit = height / 2 / reach;
  const [x, y] = [([re]) => width / 2 + unit * re, ([, im]) => height / 2 - unit * im];
  element(svg, "path", { class: "grid", d: `M0 ${height / 2}H${width}M${width / 2} 0V${height}` });
  element(svg, "circle", { class: "unit", cx: width / 2, cy: height / 2, r: unit });
  element(svg, "text", { x: width / 2 + unit + 5, y: height / 2 - 5, class: "small start" }, "1");
  for (const value of result.stepSpectrum) element(svg, "circle", { class: "step", cx: x(value), cy: y(value), r: 6 });
  for (const value of result.spectrum) element(svg, "circle", { class: "weight", cx: x(value), cy: y(value), r: 4 });
  const radius = (values) => Math.max(0, ...values.map((value) => Math.hypot(...value))).toFixed(2);
  const words = result.spectrum.length
    ? `The largest eigenvalue of W_hh (dots) has modulus ${radius(result.spectrum)}, that of the last step's Jacobian ` +
      `(rings) ${radius(result.stepSpectrum)}.`
    : "The LSTM has four recurrent matrices; drawn is the Jacobian of its last step in h and c (rings): its largest " +
      `eigenvalue has modulus ${radius(result.stepSpectrum)}.`;
  $("eigenvaluesWords").textContent =
    `${words} Repeated many times, a step shrinks what lies inside the circle, and enlarges what lies outside.`;
}

// Dark (low) to light (high), by distance from the target: h_T − 0.7 is between −0.7 and 0.3.
const COLOURS = [[38, 32, 84], [44, 98, 140], [60, 160, 136], [170, 210, 90], [250, 232, 130]];

function colour(loss) {
  const x = Math.min(0.999, Math.sqrt(loss) / 0.7) * (COLOURS.length - 1);
  const k = Math.floor(x);
  return COLOURS[k].map((value, part) => value + (x - k) * (COLOURS[k + 1][part] - value));
}

function unitSurface(length) {
  const { w, b, columns, rows } = FRAME;
  const losses = [];
  for (let row = 0; row < rows; row += 1) {
    const bias = b[1] - ((row + 0.5) / rows) * (b[1] - b[0]);
    for (let column = 0; column < columns; column += 1) {
      const weight = w[0] + ((column + 0.5) / columns) * (w[1] - w[0]);
      losses.push((unitEnd(weight, bias, length) - UNIT.target) ** 2);
    }
  }
  return losses;
}

function drawSurface(setting, result) {
  const picture = $("surface");
  // The surface depends on the length alone.
  if (!shown || shown.setting.length !== setting.length || picture.width !== FRAME.columns) {
    [picture.width, picture.height] = [FRAME.columns, FRAME.rows];
    const pixels = unitSurface(setting.length).flatMap((loss) => [...colour(loss), 255]);
    picture.getContext("2d").putImageData(new ImageData(Uint8ClampedArray.from(pixels), FRAME.columns), 0, 0);
  }
  const width = picture.parentElement.clientWidth;
  const height = (width * FRAME.rows) / FRAME.columns;
  const { svg } = canvasOf("paths", height);
  const x = (w) => (width * (w - FRAME.w[0])) / (FRAME.w[1] - FRAME.w[0]);
  const y = (b) => (height * (FRAME.b[1] - b)) / (FRAME.b[1] - FRAME.b[0]);
  for (const kind of ["free", "clipped"]) {
    const points = result[kind].map(({ w, b }) => `${x(w)},${y(b)}`).join(" ");
    element(svg, "polyline", { class: `halo ${kind}`, points });
    element(svg, "polyline", { class: `path ${kind}`, points });
    const end = result[kind][result[kind].length - 1];
    if (!outside(end)) element(svg, "circle", { class: `end ${kind}`, cx: x(end.w), cy: y(end.b), r: 5 });
  }
  const { w, b } = result.free[0];
  element(svg, "circle", { class: "begin", cx: x(w), cy: y(b), r: 4 });
  element(svg, "text", { x: x(w) + 8, y: y(b) + 15, class: "onPicture" }, "start");
  element(svg, "text", { x: width - 6, y: height - 7, class: "onPicture end" }, `w: ${FRAME.w.join(" to ")}`);
  element(svg, "text", { x: 6, y: 16, class: "onPicture" }, `b: ${signed(FRAME.b.join(" to "))}`);
  $("surfaceWords").textContent = descentWords(result);
}

function fillTable(setting, result) {
  const names = setting.cell === "lstm" ? ["c", "h"] : ["h"];
  const head = $("numbers").tHead;
  const body = $("numbers").tBodies[0];
  head.replaceChildren();
  body.replaceChildren();
  const row = element(head, "tr");
  for (const text of ["steps back", ...names.map((name) => `gradient of ${name}`)]) {
    element(row, "th", { scope: "col" }, text);
  }
  for (const t of shownSteps(setting.length, 11).reverse()) {
    const lag = setting.length - t;
    const line = element(body, "tr");
    element(line, "th", { scope: "row" }, String(lag));
    for (const name of names) element(line, "td", {}, power(result.profile[name][lag]));
  }
}

function update() {
  const setting = readSetting();
  const result = explore(DRAWS, DESCENT, setting);
  showSetting(setting);
  speak(sentence(setting, result));
  drawUnfolded(setting, result);
  drawProfile(setting, result);
  drawEigenvalues(result);
  drawSurface(setting, result);
  fillTable(setting, result);
  shown = { setting, result };
}

let asked = false;

// At most once for each picture of the screen, however fast a slider moves.
function ask() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    update();
  });
}

function choosePreset(name) {
  const { cell, ...sliders } = PRESETS[name];
  form.elements.cell.value = cell;
  for (const [id, value] of Object.entries(sliders)) $(id).value = value;
  markPreset(name);
  ask();
}

function markPreset(chosen) {
  for (const button of document.querySelectorAll("[data-preset]")) {
    button.setAttribute("aria-pressed", String(button.dataset.preset === chosen));
  }
  for (const words of document.querySelectorAll("[data-story]")) words.hidden = words.dataset.story !== chosen;
}

for (const button of document.querySelectorAll("[data-preset]")) {
  button.addEventListener("click", () => choosePreset(button.dataset.preset));
}
form.addEventListener("input", ask);
new ResizeObserver(ask).observe(document.body);
choosePreset("nothing");
