"use strict";
// What the page shows, as pure functions in float64: nothing here touches the document.
// States are row vectors: W[i][j] leads from unit i to unit j, and h_t = φ(x_t U + h_{t−1} W).

const sigmoid = (a) => 0.5 * (1 + Math.tanh(0.5 * a));

// φ, and φ′ as a function of h = φ(a).
const ACTIVATIONS = {
  tanh: { value: Math.tanh, slope: (h) => 1 - h * h },
  relu: { value: (a) => Math.max(a, 0), slope: (h) => (h > 0 ? 1 : 0) },
  linear: { value: (a) => a, slope: () => 1 },
};

const zeros = (count) => new Array(count).fill(0);
const norm = (vector) => Math.hypot(...vector);
const scaled = (matrix, gain) => matrix.map((row) => row.map((weight) => gain * weight));

// h W: one step forwards.
function timesMatrix(vector, matrix) {
  return matrix[0].map((_, column) => vector.reduce((sum, value, row) => sum + value * matrix[row][column], 0));
}

// d Wᵀ: one step backwards.
function timesTransposed(vector, matrix) {
  return matrix.map((row) => row.reduce((sum, weight, column) => sum + weight * vector[column], 0));
}

// The vanilla RNN over `length` inputs: each step with what its backward step needs.
function rnnForward(draw, { gain, activation, length }) {
  const weights = scaled(draw.rnn.recurrent, gain);
  const { value, slope } = ACTIVATIONS[activation];
  const steps = [];
  let h = zeros(weights.length);
  for (let t = 0; t < length; t += 1) {
    const pushed = timesMatrix(h, weights);
    h = pushed.map((sum, unit) => value(sum + draw.inputs[t] * draw.rnn.input[unit]));
    steps.push({ h, slope: h.map(slope), weights });
  }
  return steps;
}

// dL/dh_{t−1} from dL/dh_t: (dL/dh_t ⊙ φ′_t) Wᵀ.
const rnnBack = (step, dh) => timesTransposed(dh.map((value, unit) => value * step.slope[unit]), step.weights);

// The LSTM with the gates in torch's order: input, forget, candidate, output.
function lstmForward(draw, { gain, forgetBias, length }) {
  const weights = scaled(draw.lstm.recurrent, gain);
  const width = weights.length;
  const steps = [];
  let h = zeros(width);
  let c = zeros(width);
  for (let t = 0; t < length; t += 1) {
    const before = c;
    const a = timesMatrix(h, weights).map((sum, unit) => sum + draw.inputs[t] * draw.lstm.input[unit]);
    const i = a.slice(0, width).map(sigmoid);
    const f = a.slice(width, 2 * width).map((sum) => sigmoid(sum + forgetBias));
    const g = a.slice(2 * width, 3 * width).map(Math.tanh);
    const o = a.slice(3 * width).map(sigmoid);
    c = before.map((value, unit) => f[unit] * value + i[unit] * g[unit]);
    const squashed = c.map(Math.tanh);
    h = squashed.map((value, unit) => o[unit] * value);
    steps.push({ i, f, g, o, before, squashed, h, c, weights });
  }
  return steps;
}

// The total derivative with respect to c_t: what came along c, and what came through h_t = o_t ⊙ tanh(c_t).
const throughOutput = (step, dh, dc) => dc.map((value, k) => value + dh[k] * step.o[k] * (1 - step.squashed[k] ** 2));

// One step back: h_{t−1} and c_{t−1} receive this from dL/dh_t and from what came to c_t along c.
function lstmBack(step, dh, carried) {
  const { i, f, g, o, before, squashed, weights } = step;
  const dc = throughOutput(step, dh, carried);
  const da = [
    ...dc.map((value, k) => value * g[k] * i[k] * (1 - i[k])),
    ...dc.map((value, k) => value * before[k] * f[k] * (1 - f[k])),
    ...dc.map((value, k) => value * i[k] * (1 - g[k] ** 2)),
    ...dh.map((value, k) => value * squashed[k] * o[k] * (1 - o[k])),
  ];
  return [timesTransposed(da, weights), dc.map((value, k) => value * f[k])];
}

// log10 ‖dL/dh_t‖ by lag (0 is the last step), for L = h_T · readout. After each step the gradient is scaled to length 1
// and its size kept as a logarithm, so that nothing is lost below the smallest float. −Infinity is an exact zero.
function rnnProfile(steps, readout) {
  let dh = readout;
  let log = 0;
  const byLag = [];
  for (let lag = 0; lag < steps.length; lag += 1) {
    const size = norm(dh);
    log += Math.log10(size);
    byLag.push(log);
    dh = size > 0 ? rnnBack(steps[steps.length - 1 - lag], dh.map((value) => value / size)) : zeros(dh.length);
  }
  return { h: byLag };
}

// The same for both states of the LSTM; they share one scale.
function lstmProfile(steps, readout) {
  let dh = readout;
  let carried = zeros(readout.length);
  let log = 0;
  const profile = { h: [], c: [] };
  for (let lag = 0; lag < steps.length; lag += 1) {
    const step = steps[steps.length - 1 - lag];
    const size = norm([...dh, ...carried]) || 1;
    log += Math.log10(size);
    dh = dh.map((value) => value / size);
    carried = carried.map((value) => value / size);
    profile.h.push(log + Math.log10(norm(dh)));
    profile.c.push(log + Math.log10(norm(throughOutput(step, dh, carried))));
    [dh, carried] = lstmBack(step, dh, carried);
  }
  return profile;
}

// ∂(state after a step)/∂(state before): one backward step for each unit. [before][after]
function jacobian(step) {
  const width = step.h.length;
  const unit = (count, k) => zeros(count).map((_, index) => (index === k ? 1 : 0));
  const columns = step.f
    ? [...zeros(2 * width).keys()].map((k) => {
        const one = unit(2 * width, k);
        return lstmBack(step, one.slice(0, width), one.slice(width)).flat();
      })
    : [...zeros(width).keys()].map((k) => rnnBack(step, unit(width, k)));
  return columns[0].map((_, row) => columns.map((column) => column[row]));
}

// Eigenvalues [re, im] of a real square matrix: reduced to Hessenberg form by elimination with pivots, then QR steps with
// Wilkinson's shift in complex arithmetic (Golub & Van Loan, Matrix Computations, chapter 7).
function eigenvalues(matrix) {
  const a = hessenberg(matrix).map((row) => row.map((value) => [value, 0]));
  const found = [];
  let high = a.length - 1;
  let tries = 0;
  while (high >= 0) {
    let low = high;
    while (low > 0 && !negligible(a, low)) low -= 1;
    if (low === high) {
      found.push(a[high][high]);
      high -= 1;
      tries = 0;
      continue;
    }
    tries += 1;
    if (tries > 300) throw new Error("the QR iteration does not converge");
    // Every tenth step a shift out of turn: a symmetric cycle would hold the usual one for ever.
    const shift = tries % 10 ? wilkinson(a, high) : plus(a[high][high], [size(a[high][high - 1]), 0]);
    qrStep(a, low, high, shift);
  }
  return found;
}

function hessenberg(matrix) {
  const a = matrix.map((row) => [...row]);
  for (let m = 1; m < a.length - 1; m += 1) {
    let pivot = m;
    for (let row = m; row < a.length; row += 1) if (Math.abs(a[row][m - 1]) > Math.abs(a[pivot][m - 1])) pivot = row;
    if (a[pivot][m - 1] === 0) continue;
    [a[pivot], a[m]] = [a[m], a[pivot]];
    for (const row of a) [row[pivot], row[m]] = [row[m], row[pivot]];
    for (let row = m + 1; row < a.length; row += 1) {
      const factor = a[row][m - 1] / a[m][m - 1];
      a[row] = a[row].map((value, column) => value - factor * a[m][column]);
      a[row][m - 1] = 0;
      for (const each of a) each[m] += factor * each[row];
    }
  }
  return a;
}

const plus = (x, y) => [x[0] + y[0], x[1] + y[1]];
const minus = (x, y) => [x[0] - y[0], x[1] - y[1]];
const times = (x, y) => [x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]];
const conjugate = (x) => [x[0], -x[1]];
const size = (x) => Math.hypot(x[0], x[1]);

function root(x) {
  const length = size(x);
  return [Math.sqrt((length + x[0]) / 2), Math.sign(x[1] || 1) * Math.sqrt(Math.max(length - x[0], 0) / 2)];
}

function negligible(a, row) {
  const beside = size(a[row - 1][row - 1]) + size(a[row][row]);
  return size(a[row][row - 1]) <= Number.EPSILON * beside || size(a[row][row - 1]) < 1e-300;
}

// The eigenvalue of the last 2 × 2 block that is nearer to its last entry.
function wilkinson(a, high) {
  const [p, q, r, s] = [a[high - 1][high - 1], a[high - 1][high], a[high][high - 1], a[high][high]];
  const half = minus(p, s).map((value) => value / 2);
  const distance = root(plus(times(half, half), times(q, r)));
  const middle = plus(p, s).map((value) => value / 2);
  const [one, other] = [plus(middle, distance), minus(middle, distance)];
  return size(minus(one, s)) < size(minus(other, s)) ? one : other;
}

// A − shift = Q R by rotations; then A becomes R Q + shift, in the rows and columns `low` to `high`.
function qrStep(a, low, high, shift) {
  for (let k = low; k <= high; k += 1) a[k][k] = minus(a[k][k], shift);
  const rotations = [];
  for (let k = low; k < high; k += 1) {
    const length = Math.hypot(size(a[k][k]), size(a[k + 1][k])) || 1;
    const [x, y] = [a[k][k], a[k + 1][k]].map((value) => value.map((part) => part / length));
    for (let column = k; column <= high; column += 1) {
      const [upper, lower] = [a[k][column], a[k + 1][column]];
      a[k][column] = plus(times(conjugate(x), upper), times(conjugate(y), lower));
      a[k + 1][column] = minus(times(x, lower), times(y, upper));
    }
    rotations.push([x, y]);
  }
  rotations.forEach(([x, y], index) => {
    const k = low + index;
    for (let row = low; row <= Math.min(k + 1, high); row += 1) {
      const [left, right] = [a[row][k], a[row][k + 1]];
      a[row][k] = plus(times(left, x), times(right, y));
      a[row][k + 1] = minus(times(right, conjugate(x)), times(left, conjugate(y)));
    }
  });
  for (let k = low; k <= high; k += 1) a[k][k] = plus(a[k][k], shift);
}

// One sigmoid unit without input, h_t = σ(w h_{t−1} + b), and its loss (h_T − target)²: Pascanu, Mikolov & Bengio 2013.
const UNIT = { start: sigmoid(0.5), target: 0.7 };

function unitEnd(w, b, length) {
  let h = UNIT.start;
  for (let t = 0; t < length; t += 1) h = sigmoid(w * h + b);
  return h;
}

// Loss and [∂L/∂w, ∂L/∂b].
function unitGradient(w, b, length) {
  let [h, byW, byB] = [UNIT.start, 0, 0];
  for (let t = 0; t < length; t += 1) {
    [byW, byB] = [w * byW + h, w * byB + 1];
    h = sigmoid(w * h + b);
    const slope = h * (1 - h);
    [byW, byB] = [slope * byW, slope * byB];
  }
  const error = h - UNIT.target;
  return { loss: error * error, gradient: [2 * error * byW, 2 * error * byB] };
}

// Gradient descent from `start`; a gradient longer than `threshold` is shortened to it. Every point with its loss.
function descend(length, { start, rate, updates, threshold }) {
  let [w, b] = start;
  const path = [];
  for (let update = 0; update <= updates; update += 1) {
    const { loss, gradient } = unitGradient(w, b, length);
    const steepness = norm(gradient);
    path.push({ w, b, loss, steepness });
    const factor = threshold < steepness ? threshold / steepness : 1;
    [w, b] = [w - rate * factor * gradient[0], b - rate * factor * gradient[1]];
  }
  return path;
}

// Everything that the page shows, from one setting.
function explore(draws, descent, setting) {
  const draw = draws[setting.draw];
  const lstm = setting.cell === "lstm";
  const steps = lstm
    ? lstmForward(draw, setting)
    : rnnForward(draw, { ...setting, activation: setting.cell });
  const profile = lstm ? lstmProfile(steps, draw.readout) : rnnProfile(steps, draw.readout);
  return {
    profile,
    spectrum: lstm ? [] : eigenvalues(scaled(draw.rnn.recurrent, setting.gain)),
    stepSpectrum: eigenvalues(jacobian(steps[steps.length - 1])),
    forget: lstm ? steps.flatMap((step) => step.f) : [],
    free: descend(setting.length, { ...descent, threshold: Infinity }),
    clipped: descend(setting.length, { ...descent, threshold: setting.threshold }),
  };
}
