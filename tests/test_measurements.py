"""Each probe against a slow version written directly from its definition, with autograd or jacrev in float64."""

import itertools
import math

import numpy as np
import pytest
import torch

from rnnstudy.cells import GRU, LSTM, Elman, Jordan, OutputRecurrent
from rnnstudy.cells.initialisation import Orthogonal
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.probes import (
    GradientByLag,
    GradientThroughTime,
    InformativeContrast,
    LogSpaced,
    LyapunovExponents,
    NormPreservation,
    ParameterGradients,
    RecurrentSpectrum,
    Saturation,
    SingularValues,
    StartAndEnd,
)
from rnnstudy.probes.probe import Moment
from rnnstudy.probes.reading import QUANTILES
from rnnstudy.run import Run, Training
from rnnstudy.spec import SpecError, build, canonical
from rnnstudy.tasks import Adding, TemporalOrder
from rnnstudy.training.evaluation import side_batch
from rnnstudy.training.learner import Learner
from rnnstudy.training.loop import train
from rnnstudy.training.population import Population
from rnnstudy.training.randomness import generator

CPU = torch.device("cpu")
WIDTH, SEQUENCES = 4, 5
CELLS = [
    Elman(width=WIDTH),
    Elman(width=WIDTH, activation="sigmoid"),
    LSTM(width=WIDTH),
    LSTM(width=WIDTH, variant="1997"),
    GRU(width=WIDTH),
]
FED_BACK = [Jordan(width=WIDTH), OutputRecurrent(width=WIDTH, feedback="tanh")]
# Sequences of different lengths, marks at different positions.
TASK = Adding(length=12, variant="pascanu")


class Laboratory:
    """Two replicas of a network, a moment of their training, and one sequence at a time in plain autograd."""

    def __init__(self, cell, layers=1, task=TASK, gain=2.0, stage="final"):
        self.runs = tuple(Run(task=task, cell=cell, layers=layers, seed=seed) for seed in range(2))
        self.population = Population(self.runs)
        self.cell, self.layers, self.task = cell, layers, task
        parameters = Learner.begin(self.population, CPU).parameters
        self.parameters = {name: gain * value.detach() for name, value in parameters.items()}

        def side(sequences):
            return side_batch(self.population, self.parameters, sequences, CPU)

        self.moment = Moment(stage, 0, self.parameters, {}, {}, None, side, cell)

    def values(self, probe):
        return {reading.name: reading.values.double().numpy() for reading in probe.read(self.moment)}

    def batch(self, replica):
        return self.task.sample(SEQUENCES, generator(self.runs[replica].seed, "probe"))

    def own(self, replica, grad=False):
        return {
            name: value[replica : replica + 1].double().requires_grad_(grad) for name, value in self.parameters.items()
        }

    def sequence(self, replica, b, grad=False):
        """Parameters, inputs cut at the last supervised step, and the last step's loss, as a graph."""
        batch = self.batch(replica)
        last = int(batch.mask[:, b].nonzero().max())
        inputs = batch.inputs[: last + 1, None, b : b + 1].double().requires_grad_()
        parameters = self.own(replica, grad)
        outputs, trajectories = self.population.model.forward(
            ReferenceEngine(), parameters, inputs, steps=(last,), observed=True
        )
        loss = self.task.loss(outputs, batch.targets[last : last + 1, None, b : b + 1]).sum()
        return parameters, inputs, trajectories, loss, batch.informative[: last + 1, b]

    def step(self, replica, b):
        """step(joint, t) → joint, for a network of one layer, and all joint states s_0..s_τ."""
        batch, parameters = self.batch(replica), self.own(replica)
        last = int(batch.mask[:, b].nonzero().max())
        widths = self.population.model.widths

        def step(joint, t):
            parts = joint.split(list(widths.values()))
            states = {name: part.view(1, 1, -1) for name, part in zip(widths, parts, strict=True)}
            projected = self.cell.project(parameters, batch.inputs[t, b].double().view(1, 1, -1))
            after = self.cell.step(parameters, projected, states, lambda _, value: value)
            return torch.cat([after[name].flatten() for name in widths])

        states = [torch.zeros(sum(widths.values()), dtype=torch.float64)]
        for t in range(last + 1):
            states.append(step(states[-1], t))
        return step, states


def quantiles(rows):
    return np.quantile(np.asarray(rows), QUANTILES, axis=0)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_informative_contrast(cell, layers):
    laboratory = Laboratory(cell, layers)
    actual = laboratory.values(InformativeContrast(sequences=SEQUENCES))["summary/informative_contrast_final"]
    for r in range(2):
        at, lags, marked = [], [], []
        for b in range(SEQUENCES):
            _, inputs, _, loss, informative = laboratory.sequence(r, b)
            [gradient] = torch.autograd.grad(loss, inputs)
            at += gradient[:, 0, 0].norm(dim=-1).log10().tolist()
            lags += range(len(inputs) - 1, -1, -1)
            marked += informative.tolist()
        at, lags, marked = np.array(at), np.array(lags), np.array(marked)
        among = (lags >= lags[marked].min()) & (lags <= lags[marked].max()) & ~marked
        assert 0 < among.sum() < (~marked).sum()
        assert actual[r] == pytest.approx(np.median(at[marked]) - np.median(at[among]), abs=1e-9)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_gradient_by_lag(cell, layers):
    """A copy of W_hh for every step: each copy's own gradient is what that step adds."""
    laboratory = Laboratory(cell, layers)
    actual = laboratory.values(GradientByLag(sequences=SEQUENCES, cosine=0.9))
    label = "W_hh" if layers == 1 else "W_hh_layer2"
    for r in range(2):
        parts = {}
        for b in range(SEQUENCES):
            parameters, _, _, loss, _ = laboratory.sequence(r, b, grad=True)
            [whole] = torch.autograd.grad(loss, [parameters[label]])
            copies = by_copies(laboratory, r, b, label)
            torch.testing.assert_close(sum(copies), whole[0], rtol=1e-9, atol=1e-15)
            for lag, part in enumerate(reversed(copies)):
                parts[lag] = parts.get(lag, 0) + part / SEQUENCES
        whole, running, cosines = sum(parts.values()), 0, []
        for lag in range(len(parts)):
            assert actual[f"by_lag/{label}_final"][r, lag] == pytest.approx(parts[lag].norm().log10().item(), abs=1e-8)
            running = running + parts[lag]
            cosines.append(((running * whole).sum() / running.norm() / whole.norm()).item())
            assert actual[f"by_lag/{label}_cosine_final"][r, lag] == pytest.approx(cosines[-1], abs=1e-9)
        window = next(k + 1 for k in range(len(cosines)) if min(cosines[k:]) >= 0.9)
        assert actual[f"summary/window_{label}_final"][r] == window


def by_copies(laboratory, r, b, label):
    """The gradients of separate copies of the topmost layer's recurrent matrix, one for each step."""
    batch, parameters = laboratory.batch(r), laboratory.own(r)
    last = int(batch.mask[:, b].nonzero().max())
    model, cell = laboratory.population.model, laboratory.cell
    below = batch.inputs[: last + 1, None, b : b + 1].double()
    copies = [parameters[label].clone().requires_grad_() for _ in range(last + 1)]
    for layer in range(laboratory.layers):
        suffix = "" if laboratory.layers == 1 else f"_layer{layer + 1}"
        own = {name: parameters[f"{name}{suffix}"] for name in model.layer_parameters(layer)}
        state = {name: torch.zeros(1, 1, WIDTH, dtype=torch.float64) for name in cell.states}
        outputs = []
        for t in range(last + 1):
            used = {**own, "W_hh": copies[t]} if layer == laboratory.layers - 1 else own
            state = cell.step(used, cell.project(used, below[t]), state, lambda _, value: value)
            outputs.append(state["h"])
        below = torch.stack(outputs)
    last_output = below[-1:] @ parameters["W_ho"] + parameters["b_o"][:, None, :]
    loss = laboratory.task.loss(last_output, batch.targets[last : last + 1, None, b : b + 1]).sum()
    return [gradient[0] for gradient in torch.autograd.grad(loss, copies)]


@pytest.mark.parametrize("alive", ["all", "half"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "linear"])
def test_omega_is_that_of_the_published_code(activation, alive):
    laboratory = Laboratory(Elman(width=WIDTH, activation=activation))
    pairs = []
    for r in range(2):
        pairs.append([])
        for b in range(SEQUENCES):
            parameters, _, [trajectory], loss, _ = laboratory.sequence(r, b)
            (loss / SEQUENCES).backward()
            _, states = laboratory.step(r, b)
            for t, h in enumerate(states[1:]):
                delta = trajectory.gradient("h")[t, 0, 0]
                slope = {"tanh": 1 - h**2, "sigmoid": h * (1 - h), "linear": torch.ones_like(h)}[activation]
                n, d = ((delta * slope) @ parameters["W_hh"][0].T).square().sum(), delta.square().sum()
                pairs[r].append((n.item(), d.item()))
    for r, own in enumerate(pairs):
        bound = 1e-30 if alive == "all" else float(np.quantile([d for _, d in own], 0.51))
        actual = laboratory.values(NormPreservation(sequences=SEQUENCES, bound=bound))
        terms = [(n / d - 1) ** 2 for n, d in own if d >= bound]
        assert actual["summary/omega_final"][r] == pytest.approx(np.mean(terms), rel=1e-9)
        assert actual["summary/live_share_final"][r] == pytest.approx(len(terms) / len(own), abs=1e-12)
        assert (len(terms) == len(own)) == (alive == "all")


def test_omega_of_joint_states_is_that_of_the_joint_jacobian():
    laboratory = Laboratory(LSTM(width=WIDTH))
    actual = laboratory.values(NormPreservation(sequences=SEQUENCES))
    for r in range(2):
        terms = []
        for b in range(SEQUENCES):
            _, _, [trajectory], loss, _ = laboratory.sequence(r, b)
            loss.backward()
            step, states = laboratory.step(r, b)
            # Only h is read by the readout: what arrives at the last step is (0, dL/dh), then the Jacobians' work.
            carried = torch.cat([torch.zeros(WIDTH, dtype=torch.float64), trajectory.gradient("h")[-1, 0, 0]])
            for t in range(len(states) - 2, -1, -1):
                back = torch.func.jacrev(lambda s, t=t, step=step: step(s, t))(states[t]).T @ carried
                terms.append(((back.norm() / carried.norm()) ** 2 - 1).item() ** 2)
                carried = back
        assert actual["summary/omega_final"][r] == pytest.approx(np.mean(terms), rel=1e-9)


@pytest.mark.parametrize("cell", CELLS + FED_BACK, ids=repr)
def test_singular_values_of_the_joint_state_and_of_each_path(cell):
    laboratory = Laboratory(cell)
    readings = {reading.name: reading for reading in SingularValues(sequences=SEQUENCES).read(laboratory.moment)}
    joint = "joint" if len(cell.states) > 1 else "h"
    widths = laboratory.population.model.widths
    ends = np.cumsum([0, *widths.values()]).tolist()
    paths = {joint: slice(0, ends[-1])}
    if len(cell.states) > 1:
        paths.update({name: slice(*bounds) for name, bounds in zip(widths, itertools.pairwise(ends), strict=True)})
    assert set(readings) == {f"singular_values/{path}_final" for path in paths}
    lags = [int(lag) for lag in readings[f"singular_values/{joint}_final"].coordinates["lag"]]
    assert lags[:4] == [1, 2, 4, 8]
    for r in range(2):
        rows = {(path, lag): [] for path in paths for lag in lags}
        for b in range(SEQUENCES):
            step, states = laboratory.step(r, b)
            last = len(states) - 1

            def whole(s, first, step=step, last=last):
                for t in range(first, last):
                    s = step(s, t)
                return s

            for lag in lags:
                if lag > last:
                    continue
                jacobian = torch.func.jacrev(whole)(states[last - lag], last - lag)
                rows[joint, lag].append(torch.linalg.svdvals(jacobian).clamp(min=1e-300).log10().numpy())
                for path, part in paths.items():
                    if path == joint:
                        continue
                    product = torch.eye(part.stop - part.start, dtype=torch.float64)
                    for t in range(last - lag, last):
                        block = torch.func.jacrev(lambda s, t=t, step=step: step(s, t))(states[t])[part, part]
                        product = block @ product
                    rows[path, lag].append(torch.linalg.svdvals(product).clamp(min=1e-300).log10().numpy())
        for (path, lag), values in rows.items():
            actual = readings[f"singular_values/{path}_final"].values[r, :, :, lags.index(lag)].numpy()
            expected = quantiles(values)
            compared = ~np.isnan(actual)
            if (expected[:, 0] == -300).all():
                assert not compared.any(), "nothing of this path goes through time"
                continue
            assert compared[:, 0].all()
            np.testing.assert_allclose(actual[compared], expected[compared], atol=1e-3)
            # Rounding touches the smallest values first: the largest agree to ten digits.
            np.testing.assert_allclose(actual[:, 0], expected[:, 0], atol=1e-9)


def test_the_cell_path_of_an_lstm_is_the_product_of_its_forget_gates():
    laboratory = Laboratory(LSTM(width=WIDTH), task=TemporalOrder(length=12))
    readings = {reading.name: reading for reading in SingularValues(sequences=1).read(laboratory.moment)}
    actual = readings["singular_values/c_final"]
    for r in range(2):
        parameters = laboratory.own(r)
        inputs = laboratory.task.sample(1, generator(laboratory.runs[r].seed, "probe")).inputs.double()
        h = c = torch.zeros(WIDTH, dtype=torch.float64)
        gates = []
        for x in inputs[:, 0]:
            a = x @ parameters["W_xh"][0] + h @ parameters["W_hh"][0] + parameters["b_h"][0]
            f, i, o, candidate = a.split(WIDTH)
            gates.append(f.sigmoid())
            c = f.sigmoid() * c + i.sigmoid() * candidate.tanh()
            h = o.sigmoid() * c.tanh()
        for index, lag in enumerate(actual.coordinates["lag"]):
            expected = torch.stack(gates[-int(lag) :]).prod(0).sort(descending=True).values.log10()
            torch.testing.assert_close(actual.values[r, 2, :, index], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("cell", CELLS + FED_BACK, ids=repr)
def test_lyapunov_exponents(cell):
    laboratory = Laboratory(cell)
    actual = laboratory.values(LyapunovExponents(sequences=SEQUENCES))
    for r in range(2):
        rows = []
        for b in range(SEQUENCES):
            step, states = laboratory.step(r, b)
            q, total = np.eye(len(states[0])), 0
            for t, s in enumerate(states[:-1]):
                jacobian = torch.func.jacrev(lambda s, t=t, step=step: step(s, t))(s).numpy()
                q, upper = np.linalg.qr(jacobian @ q)
                total = total + np.log(np.abs(np.diag(upper)) + 1e-300)
            rows.append(np.sort(total / (len(states) - 1))[::-1])
        alive = np.linalg.matrix_rank(jacobian)
        assert alive == (1 if cell in FED_BACK else len(states[0]))
        np.testing.assert_allclose(
            actual["lyapunov/exponents_final"][r][:, :alive], quantiles(rows)[:, :alive], atol=1e-7
        )
        assert np.isnan(actual["lyapunov/exponents_final"][r][:, alive:]).all()
        largest = np.median([row[0] for row in rows])
        assert actual["summary/lyapunov_largest_final"][r] == pytest.approx(largest, abs=1e-9)


def test_a_linear_orthogonal_network_has_one_exponent_and_one_singular_value_however_long():
    """W_hh = ρQ: every exponent is ln ρ, every singular value lag · log10 ρ, far below what a float holds."""
    task = TemporalOrder(length=1100)
    run = Run(task=task, cell=Elman(width=3, activation="linear"), initialisation=Orthogonal(gain=0.4))
    population = Population((run,))
    parameters = {name: value.double() for name, value in population.initial_parameters().items()}
    exact = torch.linalg.qr(parameters["W_hh"]).Q * 0.4
    parameters["W_hh"] = exact

    def side(sequences):
        return side_batch(population, parameters, sequences, CPU)

    moment = Moment("final", 0, parameters, {}, {}, None, side, run.cell)
    [exponents, _] = LyapunovExponents(sequences=2).read(moment)
    torch.testing.assert_close(
        exponents.values, torch.full((1, 5, 3), math.log(0.4), dtype=torch.float64), rtol=0, atol=1e-12
    )
    [values] = SingularValues(sequences=2).read(moment)
    lags = torch.tensor(values.coordinates["lag"], dtype=torch.float64)
    assert lags[-1] == 1099
    torch.testing.assert_close(values.values, (lags * math.log10(0.4)).expand(1, 5, 3, -1), rtol=0, atol=1e-9)
    profile = {reading.name: reading for reading in GradientThroughTime(sequences=2).read(moment)}[
        "profile/h_final_normalised"
    ]
    expected = (torch.arange(1100).double() * math.log10(0.4)).expand(1, 5, -1)
    torch.testing.assert_close(profile.values, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("cell", CELLS + FED_BACK, ids=repr)
def test_saturation(cell):
    laboratory = Laboratory(cell, gain=6.0)
    actual = laboratory.values(Saturation(sequences=SEQUENCES, margin=0.1))
    for r in range(2):
        near, count = {}, 0
        for b in range(SEQUENCES):
            batch, parameters = laboratory.batch(r), {name: value[0] for name, value in laboratory.own(r).items()}
            _, states = laboratory.step(r, b)
            for t, (before, after) in enumerate(itertools.pairwise(states)):
                x = batch.inputs[t, b].double() @ parameters["W_xh"] + parameters["b_h"]
                for name, (values, low, high) in bounded_by_hand(cell, parameters, x, before, after).items():
                    near[f"{name}_low"] = near.get(f"{name}_low", 0) + (values - low < 0.1).sum().item()
                    near[f"{name}_high"] = near.get(f"{name}_high", 0) + (high - values < 0.1).sum().item()
                count += WIDTH
        assert set(actual) == {f"summary/saturation_{name}_final" for name in near}
        for name, total in near.items():
            assert actual[f"summary/saturation_{name}_final"][r] == pytest.approx(total / count, abs=1e-12)
    assert any(0 < value < 1 for values in actual.values() for value in values)


def bounded_by_hand(cell, parameters, x, before, after):
    """Name to (values, lower bound, upper bound) of one step of one sequence."""
    match cell:
        case LSTM():
            *gates, candidate = (x + before[WIDTH:] @ parameters["W_hh"]).split(WIDTH)
            size = 2 if cell.variant == "1997" else 1
            gates_by_name = {
                name: (gate.sigmoid(), 0, 1) for name, gate in zip("fio"[-len(gates) :], gates, strict=True)
            }
            candidate = size * (candidate / size).tanh()
            return {**gates_by_name, "candidate": (candidate, -size, size), "h": (after[WIDTH:], -1, 1)}
        case GRU():
            (rx, zx, nx), (rh, zh, nh) = x.split(WIDTH), (before @ parameters["W_hh"]).split(WIDTH)
            candidate = (nx + (rx + rh).sigmoid() * (nh + parameters["b_hn"])).tanh()
            gates_by_name = {"r": ((rx + rh).sigmoid(), 0, 1), "z": ((zx + zh).sigmoid(), 0, 1)}
            return {**gates_by_name, "candidate": (candidate, -1, 1), "h": (after, -1, 1)}
        case _:
            return {"h": (after[:WIDTH], 0 if cell.activation == "sigmoid" else -1, 1)}


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_recurrent_spectrum_is_numpys(cell, layers):
    laboratory = Laboratory(cell, layers, stage="training")
    actual = laboratory.values(RecurrentSpectrum())
    expected = {}
    for layer, r in itertools.product(range(layers), range(2)):
        label = "W_hh" if layers == 1 else f"W_hh_layer{layer + 1}"
        matrix = laboratory.parameters[label][r].double().numpy()
        blocks = np.split(matrix, matrix.shape[1] // WIDTH, axis=1)
        names = {1: [""], 3: ["r", "z", "candidate"], 4: ["f", "i", "o", "candidate"]}[len(blocks)]
        names = ["i", "o", "candidate"] if isinstance(cell, LSTM) and len(blocks) == 3 else names
        for name, block in zip(names, blocks, strict=True):
            full = f"recurrent/{label}_{name}".rstrip("_")
            expected[f"{full}_radius", r] = np.abs(np.linalg.eigvals(block)).max()
            expected[f"{full}_largest_singular_value", r] = np.linalg.norm(block, 2)
    assert set(actual) == {name for name, _ in expected}
    for (name, r), value in expected.items():
        assert actual[name][r] == pytest.approx(value, rel=1e-9)


def test_weights_that_are_not_finite_are_absent_and_no_error():
    laboratory = Laboratory(LSTM(width=WIDTH))
    laboratory.parameters["W_hh"][1, 0, 0] = torch.nan
    for probe in (RecurrentSpectrum(), SingularValues(), LyapunovExponents(), NormPreservation(), GradientByLag()):
        for reading in probe.read(laboratory.moment):
            assert reading.values[0].isfinite().any(), reading.name
    spectrum = laboratory.values(RecurrentSpectrum())
    assert np.isnan(spectrum["summary/recurrent_W_hh_f_radius_final"][1])
    assert np.isnan(laboratory.values(LyapunovExponents())["lyapunov/exponents_final"][1]).all()


def test_schedules():
    spaced = LogSpaced(per_decade=4)
    due = [step for step in range(2000) if spaced.due(step)]
    assert due == [0, 1, 2, 3, 6, 10, 18, 32, 56, 100, 178, 316, 562, 1000, 1778]
    assert not any(StartAndEnd().due(step) for step in range(2000))
    dense = LogSpaced(per_decade=50)
    expected = {0} | {round(10 ** (k / 50)) for k in range(200)}
    assert {step for step in range(9000) if dense.due(step)} == {step for step in expected if step < 9000}
    assert [step for step in range(9) if GradientThroughTime(every=4).due(step)] == [0, 4, 8]


def test_a_schedule_is_a_field_like_any_other():
    assert canonical(GradientThroughTime())["fields"] == {}
    assert canonical(GradientThroughTime(every=5))["fields"] == {"every": 5}
    scheduled = (GradientThroughTime(every=LogSpaced(per_decade=3)), ParameterGradients(every=StartAndEnd()))
    assert build(canonical(scheduled)) == scheduled
    assert canonical(scheduled[0])["fields"]["every"]["fields"] == {"per_decade": 3.0}
    with pytest.raises(SpecError, match="every is 0; it must be at least 1"):
        GradientThroughTime(every=0)
    with pytest.raises(SpecError, match="it takes a whole number or a ReadingSchedule"):
        GradientThroughTime(every="daily")


def test_readings_follow_their_schedules_in_training():
    probes = (
        ParameterGradients(every=LogSpaced(per_decade=2)),
        RecurrentSpectrum(every=10),
        LyapunovExponents(sequences=2, every=10),
        SingularValues(sequences=2),
        Saturation(sequences=2, every=StartAndEnd()),
    )
    training = Training(steps=23, batch=4, check_every=10, validation_sequences=10, test_sequences=10)
    run = Run(task=TemporalOrder(length=12), cell=Elman(width=WIDTH), training=training, probes=probes)
    [last] = [record for record in train(run, device="cpu") if record.outcome]
    series = last.series
    assert series["gradient/W_hh_before"].steps.tolist() == [0, 1, 3, 10]
    assert series["gradient/W_hh_before"].spacing == 0
    assert series["recurrent/W_hh_radius"].steps.tolist() == [0, 10, 20]
    assert series["lyapunov/exponents"].steps.tolist() == [0, 10, 20]
    assert series["lyapunov/exponents"].values.shape == (3, len(QUANTILES), WIDTH)
    assert series["lyapunov/exponents"].spacing == 10
    np.testing.assert_array_equal(
        series["lyapunov/exponents"].values[0], series["lyapunov/exponents_initial"].values[0]
    )
    assert {name for name in series if name.startswith("singular")} == {
        "singular_values/h_initial",
        "singular_values/h_final",
    }
    assert not any(name.startswith("saturation/") for name in series)
    summary = last.outcome.summary
    assert {"saturation_h_low_initial", "lyapunov_largest_final", "recurrent_W_hh_radius_final"} <= set(summary)
