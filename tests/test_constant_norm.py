"""The backward pass with its norm restored at each step, against a loop of vector-Jacobian products in float64."""

import pytest
import torch

from rnnstudy.cells import GRU, LSTM, Elman
from rnnstudy.cells.initialisation import Orthogonal
from rnnstudy.engines.compiled import CompiledEngine
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.engines.scaled import ScaledEngine
from rnnstudy.optimisers import ConstantNorm, Omega
from rnnstudy.probes import GradientThroughTime
from rnnstudy.run import Run, Training
from rnnstudy.spec import SpecError
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.loop import train
from rnnstudy.training.population import Population

TIME, BATCH = 7, 3
CELLS = [Elman(width=4), LSTM(width=3), GRU(width=3)]


def setting(cell, layers=1):
    """Model, float64 parameters, inputs, and coefficients that make a loss of the outputs at all steps."""
    run = Run(task=TemporalOrder(length=10), cell=cell, layers=layers, initialisation=Orthogonal(gain=0.4))
    population = Population((run, run.replace(seed=1)))
    parameters = {name: value.double().requires_grad_() for name, value in population.initial_parameters().items()}
    noise = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=noise, dtype=torch.float64)  # noqa: E731
    return population.model, parameters, draw(TIME, 2, BATCH, run.task.features), draw(TIME, 2, BATCH, run.task.outputs)


def by_hand(model, parameters, inputs, coefficients):
    """The parameters' gradients of one replica and sequence (one layer), and the norm at each step."""
    own = {name: value.detach().clone().requires_grad_() for name, value in parameters.items()}
    cell, states, graphs = model.cell, {}, []
    states = {name: torch.zeros(1, 1, width, dtype=torch.float64) for name, width in model.widths.items()}
    for x in inputs:
        before = {name: value.detach().requires_grad_() for name, value in states.items()}
        states = cell.step(own, cell.project(own, x.view(1, 1, -1)), before, lambda _, value: value)
        graphs.append((before, states))
    arriving = {name: torch.zeros(1, 1, width, dtype=torch.float64) for name, width in model.widths.items()}
    total = {name: torch.zeros_like(value) for name, value in own.items()}
    norms = []
    for (before, after), c in zip(reversed(graphs), coefficients.flip(0), strict=True):
        h = after[cell.output].detach().requires_grad_()
        loss = ((h[0, 0] @ own["W_ho"][0] + own["b_o"][0]).tanh() * c).sum()
        direct, at_weights, at_bias = torch.autograd.grad(loss, [h, own["W_ho"], own["b_o"]])
        total["W_ho"] += at_weights
        total["b_o"] += at_bias
        arriving = {name: value + (direct if name == cell.output else 0) for name, value in arriving.items()}
        norm = torch.cat(list(arriving.values()), dim=-1).norm()
        norms.append(norm)
        names = [name for name in own if name not in ("W_ho", "b_o")]
        gradients = torch.autograd.grad(
            list(after.values()), [*before.values(), *(own[name] for name in names)],
            [arriving[name] for name in after], allow_unused=True, materialize_grads=True,
        )  # fmt: skip
        for name, gradient in zip(names, gradients[len(before) :], strict=True):
            total[name] += gradient
        leaving = torch.cat(gradients[: len(before)], dim=-1).norm()
        arriving = {
            name: (norm / leaving if leaving > 0 else 0.0) * gradient
            for name, gradient in zip(before, gradients, strict=False)
        }
    return total, torch.stack(norms[::-1])


@pytest.mark.parametrize("last_step_only", [True, False])
@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_each_step_passes_back_the_norm_that_arrived(cell, last_step_only):
    model, parameters, inputs, coefficients = setting(cell)
    if last_step_only:
        coefficients[:-1] = 0
    steps = range(TIME)
    engine = ReferenceEngine()
    outputs, [trajectory] = model.forward(engine, parameters, inputs, steps=steps, observed=True, constant_norm=True)
    plain, _ = model.forward(engine, parameters, inputs, steps=steps, observed=False)
    assert torch.equal(outputs, plain), "values do not change"
    (outputs.tanh() * coefficients).sum().backward()
    for replica in range(2):
        own = {name: value[replica : replica + 1] for name, value in parameters.items()}
        parts = [by_hand(model, own, inputs[:, replica, b], coefficients[:, replica, b]) for b in range(BATCH)]
        for name, value in parameters.items():
            expected = sum(total[name][0] for total, _ in parts)
            torch.testing.assert_close(value.grad[replica], expected, rtol=1e-9, atol=1e-12)
        if last_step_only and len(model.widths) == 1:
            norms = trajectory.gradient("h")[:, replica].norm(dim=-1)
            torch.testing.assert_close(norms, norms[-1].expand_as(norms), rtol=1e-9, atol=0)


def test_an_orthogonal_linear_network_keeps_its_gradients_and_a_shrinking_one_gets_the_directions():
    model, parameters, inputs, coefficients = setting(Elman(width=4, activation="linear"))
    orthogonal = torch.linalg.qr(parameters["W_hh"].detach())[0]

    def gradient(gain, constant_norm):
        own = {name: value.detach().clone().requires_grad_() for name, value in parameters.items()}
        own["W_hh"] = (gain * orthogonal).requires_grad_()
        outputs, _ = model.forward(
            ReferenceEngine(), own, inputs, steps=(TIME - 1,), observed=False, constant_norm=constant_norm
        )
        return torch.autograd.grad((outputs * coefficients[-1:]).sum(), own["W_xh"])[0]

    torch.testing.assert_close(gradient(1.0, True), gradient(1.0, False), rtol=1e-9, atol=1e-12)
    # The gradient of W_xh does not depend on the states: with the norm restored it is that of gain 1.
    torch.testing.assert_close(gradient(0.1, True), gradient(1.0, False), rtol=1e-9, atol=1e-12)


def test_training_with_it_reports_a_constant_profile_by_the_reference_engine():
    probe = GradientThroughTime(every=1)
    training = Training(
        steps=3, batch=4, check_every=3, validation_sequences=5, test_sequences=5, constant_norm=ConstantNorm()
    )
    run = Run(task=TemporalOrder(length=30), cell=Elman(width=5), training=training, probes=(probe,))
    assert run.key != run.replace(training=training.replace(constant_norm=None)).key
    [*_, last] = train(run, device="cpu")
    assert last.outcome.engine == "reference"
    medians = last.series["through_time/h"].values[:, 2]
    assert abs(medians - medians[:, -1:]).max() < 1e-4


def test_it_is_refused_where_it_cannot_work():
    with pytest.raises(SpecError, match="constant_norm"):
        Training(constant_norm=ConstantNorm(), omega=Omega(strength=1.0))
    model, parameters, inputs, _ = setting(Elman(width=4))
    for engine in (ScaledEngine(), CompiledEngine()):
        assert not engine.serves(model.cell, frozenset({"constant norm"}))
        with pytest.raises(RuntimeError):
            model.forward(engine, parameters, inputs, steps=(0,), observed=True, constant_norm=True)
