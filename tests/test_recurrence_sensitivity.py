"""The curse of memory: the probe against autograd one sequence at a time, and against its closed form."""

from typing import ClassVar

import numpy as np
import pytest
import torch

from rnnstudy.cells import LRU, S4D, Block, IndRNN, MinGRU, Published
from rnnstudy.cells.cell import Parameter
from rnnstudy.cells.diagonal import DiagonalCell
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.engines.scaled import ScaledEngine
from rnnstudy.probes import RecurrenceSensitivity
from rnnstudy.probes.probe import Moment
from rnnstudy.probes.recurrence_sensitivity import sensitivities
from rnnstudy.run import Run
from rnnstudy.tasks import Adding
from rnnstudy.training.evaluation import side_batch
from rnnstudy.training.learner import Learner
from rnnstudy.training.population import Population
from rnnstudy.training.randomness import generator

CPU, WIDTH, SEQUENCES = torch.device("cpu"), 4, 5
# Sequences of different lengths.
TASK = Adding(length=12, variant="pascanu")


def laboratory(cell, layers=1, block=None):
    """Two runs, their parameters in float64, and what the probe reads of them."""
    start = Published()
    runs = [Run(task=TASK, cell=cell, layers=layers, block=block, initialisation=start, seed=seed) for seed in range(2)]
    population = Population(tuple(runs))
    parameters = {name: value.detach().double() for name, value in Learner.begin(population, CPU).parameters.items()}
    side = lambda sequences: side_batch(population, parameters, sequences, CPU)  # noqa: E731
    moment = Moment("final", 0, parameters, {}, {}, None, side, cell)
    readings = RecurrenceSensitivity(sequences=SEQUENCES).read(moment)
    return population, parameters, {reading.name: reading for reading in readings}


def last_losses(population, own, replica):
    """The loss of the last supervised step of each sequence, as graphs, from parameters of one replica."""
    batch = TASK.sample(SEQUENCES, generator(population.runs[replica].seed, "probe"))
    for b in range(SEQUENCES):
        last = int(batch.mask[:, b].nonzero().max())
        inputs = batch.inputs[: last + 1, None, b : b + 1].double()
        outputs, _ = population.model.forward(ReferenceEngine(), own, inputs, steps=(last,), observed=False)
        yield TASK.loss(outputs, batch.targets[last : last + 1, None, b : b + 1]).sum()


@pytest.mark.parametrize(
    ("cell", "layers", "block"),
    [
        (LRU(width=WIDTH), 1, None),
        (LRU(width=WIDTH, normalisation="exact", r_max=0.9), 2, Block(norm="layer", mix="glu")),
        (LRU(width=WIDTH, normalisation="none", r_max=0.9), 1, None),
        (S4D(width=2, state_size=3), 2, None),
    ],
    ids=repr,
)
def test_every_parameter_as_by_autograd_one_sequence_at_a_time(cell, layers, block):
    population, parameters, readings = laboratory(cell, layers, block)
    wanted = {"LRU": {"nu", "theta", "log_gamma"}, "S4D": {"log_A", "A_im"}}[type(cell).__name__]
    wanted &= set(cell.parameters(1, 1))
    for replica in range(2):
        own = {name: value[replica : replica + 1].clone().requires_grad_() for name, value in parameters.items()}
        for layer in range(layers):
            ending = f"_layer{layer + 1}" if layers > 1 else ""
            moduli = cell.fixed_moduli({name: own[name + ending].detach() for name in cell.parameters(1, 1)})[0]
            order = np.argsort(moduli.numpy(), kind="stable")
            found = readings[f"sensitivity/modulus{ending}_final"]
            np.testing.assert_allclose(found.values[replica], moduli.numpy()[order], rtol=1e-12)
            assert (found.axes, found.unit) == (("index",), "")
            assert {name for name in readings if name.endswith(f"{ending}_final")} >= {
                f"sensitivity/{name}{ending}_final" for name in (*wanted, "factor")
            }
            for name in wanted:
                gradients = [
                    torch.autograd.grad(loss, own[name + ending])[0][0].numpy()
                    for loss in last_losses(population, own, replica)
                ]
                expected = np.log10(np.sqrt(np.mean(np.square(gradients), axis=0)))[order]
                found = readings[f"sensitivity/{name}{ending}_final"]
                np.testing.assert_allclose(found.values[replica], expected, rtol=1e-9)
                assert found.unit == "log10"


class Freed(LRU):
    """An LRU whose factors and scales are parameters of their own, beside each other."""

    def parameters(self, features, outputs):
        free = {name: Parameter("scale", (self.width,), ("s",)) for name in ("lambda_re", "lambda_im", "gamma")}
        return {**super().parameters(features, outputs), **free}

    def coefficients(self, parameters, projected):
        a = torch.cat([parameters["lambda_re"], parameters["lambda_im"]], dim=-1).unsqueeze(1)
        return a, projected[..., : 2 * self.width] * parameters["gamma"].repeat(1, 2).unsqueeze(1)


def test_the_factor_as_by_autograd_with_the_scale_held_fixed():
    _, parameters, readings = laboratory(LRU(width=WIDTH))
    free = Population(tuple(Run(task=TASK, cell=Freed(width=WIDTH), seed=seed) for seed in range(2)))
    for replica in range(2):
        own = {name: value[replica : replica + 1].clone() for name, value in parameters.items()}
        factor = torch.polar((-own["nu"].exp()).exp(), own["theta"].exp())
        own |= {"lambda_re": factor.real, "lambda_im": factor.imag, "gamma": own["log_gamma"].exp()}
        own = {name: value.clone().requires_grad_() for name, value in own.items()}
        squares = [
            sum(part[0].square() for part in torch.autograd.grad(loss, [own["lambda_re"], own["lambda_im"]]))
            for loss in last_losses(free, own, replica)
        ]
        order = factor.abs().detach()[0].argsort()
        expected = torch.stack(squares).mean(0).sqrt().log10()[order]
        torch.testing.assert_close(readings["sensitivity/factor_final"].values[replica], expected)


class Scalar(DiagonalCell):
    """h_t = λ h_{t−1} + γ x_t for `width` real λ, with λ = exp(−exp(ν)) and γ either 1 or √(1 − λ²)."""

    source: ClassVar[str] = "this test"
    states: ClassVar[tuple[str, ...]] = ("h",)

    scaled: bool = False

    def parameters(self, features, outputs):
        return {"nu": Parameter("diagonal", (self.width,), ("h",))}

    def project(self, parameters, inputs):
        return inputs.expand(-1, -1, self.width)

    def coefficients(self, parameters, projected):
        factor = (-parameters["nu"].exp()).exp().unsqueeze(1)
        return factor, projected * ((1 - factor.square()).sqrt() if self.scaled else 1.0)

    def fixed_moduli(self, parameters):
        return (-parameters["nu"].exp()).exp()


@pytest.mark.parametrize("scaled", [False, True])
def test_the_closed_form_for_white_inputs(scaled):
    factors, steps, sequences = np.array([0.3, 0.7, 0.9, 0.95]), 260, 20_000
    # In another order than by size, which the readings have.
    nu = torch.tensor(-np.log(factors[::-1].copy())).log()[None].requires_grad_()
    inputs = torch.randn(steps, 1, sequences, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cell = Scalar(width=4, scaled=scaled)
    trajectory = ScaledEngine().unroll(cell, {"nu": nu}, inputs, widths={"h": 4}, observed=True, steps=[steps - 1])
    trajectory.outputs.sum().backward()
    found = {name: 10 ** values[0].numpy() for name, values in sensitivities(trajectory).items()}
    r = factors**2
    by_factor = (1 + r) / (1 - r) ** 3 * ((1 - r) if scaled else 1.0)
    by_nu = 1 / (1 - r) ** 2 if scaled else (1 + r) / (1 - r) ** 3
    np.testing.assert_allclose(np.log10(found["modulus"]), factors)
    # A mean square of so many numbers is right within some per cent.
    np.testing.assert_allclose(found["factor"] ** 2, by_factor, rtol=0.06)
    np.testing.assert_allclose(found["nu"] ** 2, by_nu * r * np.log(factors) ** 2, rtol=0.06)


def test_with_scale_and_parametrisation_the_sensitivity_stays_bounded():
    """The limit named in the docstring: r (log λ)²/(1 − r)² → ¼."""
    factors = 1 - np.logspace(-7, -1, 30)
    squares = (factors * np.log(factors) / (1 - factors**2)) ** 2
    assert squares[0] == pytest.approx(0.25, rel=1e-6)
    assert (squares < 0.25 + 1e-9).all()
    r = factors[0] ** 2
    assert (1 + r) / (1 - r) ** 3 == pytest.approx(2.5e20, rel=0.01)


@pytest.mark.parametrize("cell", [MinGRU(width=WIDTH), IndRNN(width=WIDTH)], ids=repr)
def test_nothing_is_read_where_the_recurrence_is_not_linear_with_fixed_factors(cell):
    *_, readings = laboratory(cell)
    assert readings == {}
