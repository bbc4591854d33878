"""Symbols as whole numbers: the same network, to the bit where it is compiled, as with one-hot vectors."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.agreement import JUDGED, Case, one_hot, passed
from rnnstudy.cells import GRU, LSTM, MLSTM, S6, SRU, Elman
from rnnstudy.cells.cell import Parameter
from rnnstudy.cells.initialisation import Glorot, Orthogonal
from rnnstudy.cells.one_hot import NOTHING, OneHot, transposed_product
from rnnstudy.engines.compiled import CompiledEngine
from rnnstudy.engines.cuda_graph import GraphEngine
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.engines.scaled import ScaledEngine
from rnnstudy.engines.scan import ScanEngine
from rnnstudy.probes import (
    GradientSignal,
    GradientThroughTime,
    InformativeContrast,
    ParameterGradients,
    Saturation,
    SingularValues,
    StateDecoder,
    StateDistance,
)
from rnnstudy.results.trained import TrainedNetwork
from rnnstudy.run import Run, Training
from rnnstudy.spec import SpecError, build
from rnnstudy.store.documents import paragraph
from rnnstudy.tasks import AssociativeRecall, LabelledText, LengthRange, LongTimeLags, RandomPermutation, TemporalOrder
from rnnstudy.training.batches import TrainingBatches, fixed_batch
from rnnstudy.training.cost import bytes_per_replica
from rnnstudy.training.loop import train
from rnnstudy.training.model import Model
from rnnstudy.training.population import Population

CPU = torch.device("cpu")
SHORT = Training(steps=6, batch=7, check_every=3, validation_sequences=20, test_sequences=30)
BEFORE = {
    "key": "4552377ec1db",
    "initial weights": [9.148973, -1.108699, -1.720161, -1.145876, -0.170888],
    "losses": [0.748493, 0.700138, 0.790427, 0.699219, 0.696862, 0.67099],
}
"""Of a run on texts, as computed when batches held one-hot vectors: sums of the initial weights, losses."""

PROBES = (
    ParameterGradients(),
    GradientThroughTime(every=2, sequences=8),
    InformativeContrast(every=3, sequences=8),
    GradientSignal(sequences=8),
    StateDecoder(sequences=12),
    StateDistance(sequences=8),
    SingularValues(sequences=1),
    Saturation(every=3, sequences=8),
)


class SymbolOrder(TemporalOrder):
    """Temporal order, whose batches hold the symbols' numbers."""

    @property
    def inputs_are_symbols(self):
        return True

    def sample(self, batch, generator):
        drawn = super().sample(batch, generator)
        read = drawn.inputs.any(-1)
        symbols = torch.where(read, drawn.inputs.argmax(-1), NOTHING).to(torch.int32)
        return type(drawn)(**{**vars(drawn), "inputs": symbols.unsqueeze(-1)})


class LooksElsewhere(Elman):
    """Reads its inputs by other operations than a product with a matrix."""

    def parameters(self, features, outputs):
        return super().parameters(features, outputs) | {"gain": Parameter("scale", (features,), ("x",))}

    def project(self, parameters, inputs):
        return super().project(parameters, (inputs + 0.5) * parameters["gain"].unsqueeze(1))


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    rows = [f"{word} film, number {n},{label}" for n in range(60) for word, label in (("good", "+"), ("bad", "-"))]
    path = tmp_path_factory.mktemp("texts") / "reviews.tsv"
    path.write_text("text\tlabel\n" + "\n".join("\t".join(row.rsplit(",", 1)) for row in rows))
    return LabelledText(path=str(path), unit="word", symbols=40, length=9)


def drawn_symbols(*shape, vocabulary=7):
    return torch.randint(NOTHING, vocabulary, shape, generator=torch.Generator().manual_seed(0))


class TestOneHot:
    symbols = drawn_symbols(2, 30)
    vectors = OneHot.of(symbols, 7, torch.float64)

    def test_it_is_described_as_its_vectors(self):
        assert (self.vectors.shape, self.vectors.dtype, self.vectors.ndim) == ((2, 30, 7), torch.float64, 3)
        assert torch.equal(self.vectors.dense(), one_hot(self.symbols.unsqueeze(-1), 7).double())

    @pytest.mark.parametrize(
        "project",
        [
            torch.bmm,
            torch.matmul,
            lambda x, w: x @ w,
            lambda x, w: torch.baddbmm(w[:, :1], x, w),
            lambda x, w: torch.einsum("rnf,rfo->rno", x, w),
            lambda x, w: (2 * x - 1) @ w,
            lambda x, w: x @ w[0],
            lambda x, w: torch.cat([x, x.square()], -1) @ torch.cat([w, w], 1),
        ],
    )
    def test_operations_and_their_gradients_are_those_of_the_dense_vectors(self, project):
        weights = torch.randn(2, 7, 5, dtype=torch.float64, requires_grad=True)
        found, expected = project(self.vectors, weights), project(self.vectors.dense(), weights)
        judge = torch.randn_like(expected)
        assert type(found) is torch.Tensor
        assert torch.equal(found, expected)
        [at_found], [at_expected] = (torch.autograd.grad(one, weights, judge) for one in (found, expected))
        torch.testing.assert_close(at_found, at_expected, rtol=0, atol=1e-14)

    def test_the_transposed_product_is_a_scatter_add(self):
        values = torch.randn(2, 30, 5, dtype=torch.float64)
        expected = transposed_product(self.vectors.dense(), values)
        torch.testing.assert_close(transposed_product(self.vectors, values), expected, rtol=0, atol=1e-14)

    def test_a_product_with_a_large_matrix_makes_no_dense_vectors(self, monkeypatch):
        def refused(self):
            raise AssertionError("dense vectors were made")

        monkeypatch.setattr(OneHot, "dense", refused)
        cells = [Elman(width=4), LSTM(width=4), GRU(width=4), SRU(width=4), S6(width=4), MLSTM(width=4)]
        for cell, engine in [(cell, ReferenceEngine()) for cell in cells] + [
            (Elman(width=4), ScaledEngine()),
            (Elman(width=4), CompiledEngine()),
            (LSTM(width=4), GraphEngine()),
            (S6(width=4), ScanEngine()),
        ]:
            passed(engine, Case(cell, JUDGED[0], vocabulary=50), CPU, torch.float32)


@pytest.mark.parametrize("cell", [Elman(width=19), Elman(width=19, activation="relu"), LSTM(width=19), GRU(width=19)])
def test_the_compiled_engine_returns_the_bits_of_one_hot_vectors(cell):
    # Several pieces of the backward pass, in each of which the same symbols occur again.
    case = Case(cell, "varying lengths", 40, 20, 3, vocabulary=60)
    found, norms = passed(CompiledEngine(), case, CPU, torch.float32)
    expected, expected_norms = passed(CompiledEngine(), case, CPU, torch.float32, dense=True)
    assert found.keys() == expected.keys() >= {"outputs", "W_xh", "W_hh", "b_h", "W_ho"}
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert found["W_xh"].any(-1).any(0).sum() > 30
    assert all(torch.equal(one, other) for one, other in zip(norms, expected_norms, strict=True))


def again(work):
    """Instead of a capture: the replay runs the work itself again on the same arrays."""
    work()
    return work


@pytest.mark.parametrize(
    "engine",
    [ReferenceEngine(), ScaledEngine(), GraphEngine(), GraphEngine(capture=again)],
    ids=["reference", "scaled", "graph", "captured"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_other_engines_return_their_numbers_up_to_rounding(engine, dtype):
    for cell in (LSTM(width=9), GRU(width=9)):
        case = Case(cell, "some steps", layers=2, vocabulary=12)
        found, norms = passed(engine, case, CPU, dtype)
        expected, expected_norms = passed(engine, case, CPU, dtype, dense=True)
        tolerance = 20 * torch.finfo(dtype).eps
        for name, value in expected.items():
            assert (found[name] - value).abs().max() <= tolerance * value.abs().max(), name
        for one, other in zip(norms, expected_norms, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=max(tolerance, 1e-12))


@pytest.mark.parametrize(
    ("cell", "engine"),
    [
        (LSTM(width=6), "compiled"),
        (GRU(width=6), "graph"),
        (SRU(width=6), "scan"),
        (MLSTM(width=3), "reference"),
        (LooksElsewhere(width=6), "reference"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_run_reads_and_learns_the_same(cell, engine):
    """Every reading, the outcome and the weights, of the same task with and without one-hot vectors."""
    options = {"length": 10, "variant": "hochreiter"}
    probes = PROBES if engine == "compiled" else PROBES[:3]
    base = Run(task=TemporalOrder(**options), cell=cell, training=SHORT, probes=probes)
    symbols = base.replace(task=SymbolOrder(**options))
    (dense, *_), (found, *_) = (
        [record for record in train(run, device="cpu", engine=engine) if record.outcome] for run in (base, symbols)
    )
    assert found.outcome.engine == engine
    # To the bit before the first update, hence the same initial weights; after it, where the engine is compiled.
    close = {"rtol": 0, "atol": 0} if engine == "compiled" else {"rtol": 1e-4, "atol": 1e-5}
    for name, value in dense.weights.items():
        np.testing.assert_allclose(found.weights[name], value, **close, err_msg=name)
    assert found.series.keys() == dense.series.keys()
    assert {"learning/loss", "gradient/W_xh_before"} <= found.series.keys()
    for name, expected in dense.series.items():
        value = found.series[name].values
        assert np.array_equal(np.isnan(value), np.isnan(expected.values)), name
        if np.isfinite(expected.values).any():
            np.testing.assert_allclose(value, expected.values, rtol=1e-3, atol=2e-3, err_msg=name)
    assert found.outcome.summary.keys() == dense.outcome.summary.keys()
    assert any(name.startswith("informative_contrast") for name in dense.outcome.summary)
    for name, expected in dense.outcome.summary.items():
        assert math.isclose(found.outcome.summary[name], expected, rel_tol=1e-3, abs_tol=2e-3), name


class TestText:
    def test_a_batch_does_not_grow_with_the_vocabulary(self, reviews):
        sizes, estimates = set(), set()
        for symbols in (3, 40):
            task = reviews.replace(symbols=symbols)
            run = Run(task=task, cell=Elman(width=4), training=SHORT)
            batch = next(TrainingBatches(Population((run,)), 0, CPU))
            sizes.add(sum(one.nbytes for one in vars(batch).values() if isinstance(one, torch.Tensor)))
            estimates.add(bytes_per_replica(run) - 4 * 8 * 4 * task.features)
        assert len(sizes) == 1
        assert max(estimates) < 1.05 * min(estimates)

    def test_the_symbols_are_those_of_the_words_in_their_order(self, reviews):
        drawn = reviews.sample(50, torch.Generator().manual_seed(0))
        read = {" ".join(reviews.read(drawn.inputs[:, row])) for row in range(50)}
        assert {text.partition(" ")[2][:13] for text in read} == {"film , number"}
        assert not reviews.read(torch.full((4, 1), NOTHING))

    def test_the_same_runs_as_before(self, reviews, monkeypatch):
        """Key, initial weights and training losses as they were when batches held one-hot vectors."""
        monkeypatch.chdir(Path(reviews.path).parent)
        task = reviews.replace(path="reviews.tsv")
        run = Run(task=task, cell=LSTM(width=3), training=SHORT.replace(learning_rate=0.1))
        assert run.key == BEFORE["key"]
        weights = Population((run,)).initial_parameters()
        sums = [value.double().sum().item() for value in weights.values()]
        np.testing.assert_allclose(sums, BEFORE["initial weights"], rtol=0, atol=1e-5)
        for engine in ("compiled", "reference"):
            (last,) = (record for record in train(run, device="cpu", engine=engine) if record.outcome)
            losses = last.series["learning/loss"].values
            np.testing.assert_allclose(losses, BEFORE["losses"], rtol=0, atol=2e-5)

    @pytest.mark.parametrize(
        ("task", "key", "losses"),
        [
            (RandomPermutation(length=9), "33892805c9db", [4.364873, 4.082445, 3.587255, 3.307098, 2.841639, 2.324808]),
            (
                LongTimeLags(length=8, distractors=6, variant="2c"),
                "266259676cd1",
                [0.675327, 1.009006, 0.565456, 0.867344, 0.680525, 0.735546],
            ),
            (
                AssociativeRecall(length=20, vocabulary=40),
                "d0f0c1bb3ca1",
                [3.802165, 3.655228, 3.45752, 3.24581, 3.174717, 3.345689],
            ),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_the_same_runs_of_other_tasks(self, task, key, losses):
        """Likewise computed when their batches held one-hot vectors."""
        assert task.inputs_are_symbols
        run = Run(task=task, cell=Elman(width=4), training=SHORT.replace(learning_rate=0.1))
        assert run.key == key
        for engine in ("compiled", "reference"):
            (last,) = (record for record in train(run, device="cpu", engine=engine) if record.outcome)
            np.testing.assert_allclose(last.series["learning/loss"].values, losses, rtol=0, atol=2e-5)

    def test_a_range_of_lengths_ends_in_nothing(self, reviews):
        task = LengthRange(task=reviews.replace(length=2), length=9)
        drawn = task.sample(40, torch.Generator().manual_seed(0))
        behind = torch.arange(9)[:, None] >= drawn.lengths
        assert (drawn.inputs[behind] == NOTHING).all()
        assert (drawn.inputs[~behind] >= 0).all()
        assert task.inputs_are_symbols


class TestEmbedding:
    def test_it_is_that_of_torch(self):
        model = Model(cell=LSTM(width=5), layers=2, features=11, outputs=3, embedding=4)
        drawn = model.draw(Orthogonal(), torch.Generator().manual_seed(0))
        assert next(iter(drawn)) == "W_xe"
        assert drawn["W_xh_layer1"].shape == (4, 20)
        parameters = {name: value.unsqueeze(0).double().requires_grad_() for name, value in drawn.items()}
        symbols = drawn_symbols(8, 1, 6, 1, vocabulary=11).clamp(min=0)
        outputs, _ = model.forward(ReferenceEngine(), parameters, symbols, steps=range(8), observed=False)
        embedding = nn.Embedding(11, 4, dtype=torch.float64)
        embedding.weight = nn.Parameter(parameters["W_xe"][0].detach().clone())
        plain = Model(cell=LSTM(width=5), layers=2, features=4, outputs=3)
        others = {name: value.detach() for name, value in parameters.items() if name != "W_xe"}
        expected, _ = plain.forward(
            ReferenceEngine(), others, embedding(symbols[..., 0]), steps=range(8), observed=False
        )
        torch.testing.assert_close(outputs, expected, rtol=0, atol=0)
        judge = torch.randn_like(outputs)
        (outputs * judge).sum().backward()
        (expected * judge).sum().backward()
        torch.testing.assert_close(parameters["W_xe"].grad[0], embedding.weight.grad, rtol=0, atol=1e-14)

    @pytest.mark.parametrize("engine", [CompiledEngine(), ScaledEngine(), GraphEngine()], ids=lambda one: one.name)
    def test_every_engine_trains_it(self, engine):
        model = Model(cell=GRU(width=5), layers=1, features=11, outputs=3, embedding=4)
        drawn = model.draw(Orthogonal(), torch.Generator().manual_seed(0))
        gradients = []
        for own, dtype in ((engine, torch.float32), (ReferenceEngine(), torch.float64)):
            parameters = {name: value.unsqueeze(0).to(dtype).requires_grad_() for name, value in drawn.items()}
            outputs, _ = model.forward(own, parameters, drawn_symbols(8, 1, 6, 1), steps=range(8), observed=True)
            outputs.square().sum().backward()
            gradients.append(parameters["W_xe"].grad.double())
        assert gradients[1][0, :7].any(-1).all()
        assert not gradients[1][0, 7:].any()
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)

    def test_it_is_drawn_as_torch_draws_it_or_by_the_chosen_rule(self):
        model = Model(cell=LSTM(width=5), layers=1, features=500, outputs=3, embedding=20)
        normal = model.draw(Orthogonal(), torch.Generator().manual_seed(0))["W_xe"]
        assert abs(normal.mean()) < 0.05
        assert abs(normal.std() - 1) < 0.05
        glorot = model.draw(Glorot(), torch.Generator().manual_seed(0))["W_xe"]
        assert 0.95 * math.sqrt(6 / 520) < glorot.abs().max() <= math.sqrt(6 / 520)

    def test_a_run_with_one(self, reviews):
        run = Run(task=reviews, cell=LSTM(width=4), training=SHORT, embedding=3, probes=PROBES)
        assert run.key != run.replace(embedding=None).key
        assert run.structure != run.replace(embedding=4).structure
        assert build(run.described).key == run.key
        assert "LSTM (width 4) on an embedding of width 3" in paragraph(run)
        (last,) = (record for record in train(run, device="cpu") if record.outcome)
        assert last.outcome.engine == "compiled"
        assert last.weights["W_xe"].shape == (reviews.features, 3)
        assert np.isfinite(last.series["gradient/W_xe_before"].values).all()
        network = TrainedNetwork(run, {name: torch.from_numpy(value) for name, value in last.weights.items()})
        test = fixed_batch(Population((run,)), "test", 30, CPU)
        outputs = network(test.inputs[:, 0])[list(test.steps)].unsqueeze(1)
        error = reviews.measures(outputs, test.targets, test.mask)["error"].mean().item()
        assert math.isclose(error, last.outcome.summary["error"], abs_tol=1e-6)

    def test_it_needs_symbols(self):
        with pytest.raises(SpecError, match=r"^Run\.embedding is 8; it must be None for TemporalOrder, whose inputs"):
            Run(task=TemporalOrder(length=10), cell=Elman(), embedding=8)
        with pytest.raises(SpecError, match=r"^Run\.embedding is 0; it must be at least 1$"):
            Run(task=SymbolOrder(length=10), cell=Elman(), embedding=0)


class Undeclared(SymbolOrder):
    """Says that its inputs are numbers."""

    @property
    def inputs_are_symbols(self):
        return False


class Beyond(SymbolOrder):
    """Counts its symbols from 1."""

    def sample(self, batch, generator):
        drawn = super().sample(batch, generator)
        return type(drawn)(**{**vars(drawn), "inputs": drawn.inputs + 1})


class Numbers(TemporalOrder):
    """Says that its inputs are symbols."""

    @property
    def inputs_are_symbols(self):
        return True


@pytest.mark.parametrize("wrong", [-2, 5])
@pytest.mark.parametrize("engine", [CompiledEngine(), ReferenceEngine()], ids=lambda engine: engine.name)
def test_no_engine_looks_up_a_symbol_without_a_row(engine, wrong):
    """Of few and of many symbols, as the compiled engine has a way for each; nor one of another replica."""
    for steps in (1, 30):
        symbols = torch.full((steps, 2, 2, 1), wrong, dtype=torch.int32)
        model = Model(cell=Elman(width=3), layers=1, features=5, outputs=2)
        drawn = model.draw(Orthogonal(), torch.Generator().manual_seed(0))
        parameters = {name: torch.stack([value, value]) for name, value in drawn.items()}
        with pytest.raises(IndexError, match=rf"^symbols from {wrong} to {wrong}"):
            model.forward(engine, parameters, symbols, steps=(0,), observed=False)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Undeclared, "Undeclared.sample returns symbols as inputs; inputs_are_symbols says that they are numbers"),
        (Numbers, "Numbers.sample returns numbers as inputs; inputs_are_symbols says that they are symbols"),
        (Beyond, "Beyond.sample returns symbol 6; with 6 features they go from 0 to 5, and -1 is nothing"),
    ],
)
def test_a_task_that_contradicts_itself_is_refused(task, message):
    run = Run(task=task(length=10), cell=Elman(width=3), training=SHORT)
    with pytest.raises(SpecError) as told:
        list(train(run, device="cpu"))
    assert str(told.value) == message
