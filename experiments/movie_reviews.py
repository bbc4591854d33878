"""Does it matter outside toy tasks? Film reviews whose first sentence decides, with more and more text behind it.

Hypothesis: on the sentence alone a vanilla RNN, a GRU and an LSTM differ little, and a bag of words does as well; with
more text behind it the vanilla RNN falls to chance first, and so does the bag of words, which cannot tell which
sentence came first; an LSTM or GRU with forget bias 1 keeps the answer.

The sentences are those of `data/movie_reviews.csv` with a positive or a negative rating, read by word (the 2,000 most
frequent) and by character. Every side has the same width, embedding, sentences, optimiser, clipping and number of
updates; of the learning rates each side has, at each length, the one with the lowest validation error; what is reported
is the test error of the same runs, on sentences that neither training nor this choice has used.

At T = 50 by word no network learned. Was it the number of updates, or the start? Added afterwards: four times the
updates there, and two more sides whose biases are told the length. Hypothesis of the addition, written before its runs:
GRU and LSTM learn with either bias, the vanilla RNN does not.
"""

from rnnstudy.cells import GRU, LSTM, Cell, Chrono, Elman, ForgetBias, Initialisation, Orthogonal, PyTorchDefault
from rnnstudy.probes import GradientThroughTime, ParameterGradients
from rnnstudy.run import Run, Training
from rnnstudy.sweep import Scale, grid
from rnnstudy.tasks import SentenceFirst

PATH = "data/movie_reviews.csv"
RATES = (1e-3, 3e-3, 1e-2)
LONGER = 4
"""Times the updates, in the runs that train longer."""


def tasks(scale: Scale) -> list[SentenceFirst]:
    words = scale.pick(smoke=(8, 16), desk=(20, 50, 100, 200), paper=(20, 50, 100, 200, 400))
    characters = scale.pick(smoke=(), desk=(100, 200), paper=(100, 200, 400, 1000))
    sentence = scale.pick(smoke=8, desk=20, paper=20)
    chosen = {"path": PATH, "leave_out": ("neutral",)}
    return [
        *(SentenceFirst(length=length, sentence=sentence, unit="word", symbols=2000, **chosen) for length in words),
        *(SentenceFirst(length=length, sentence=100, unit="character", symbols=60, **chosen) for length in characters),
    ]


def sides(width: int) -> dict[str, tuple[Cell, Initialisation]]:
    """Name to cell and initialisation."""
    forget = PyTorchDefault(gate_bias=ForgetBias(value=1.0))
    return {
        "RNN, as drawn": (Elman(width=width), PyTorchDefault()),
        "RNN, orthogonal": (Elman(width=width), Orthogonal()),
        "GRU, forget bias 1": (GRU(width=width), forget),
        "LSTM, forget bias 1": (LSTM(width=width), forget),
    }


def sides_told(width: int, longest: int) -> dict[str, tuple[Cell, Initialisation]]:
    """Name to cell and initialisation, of those whose biases know the length of a document."""
    chrono = PyTorchDefault(gate_bias=Chrono(longest=longest))
    return {"GRU, chrono": (GRU(width=width), chrono), "LSTM, chrono": (LSTM(width=width), chrono)}


def trained_longer(scale: Scale) -> SentenceFirst:
    """The task of the runs that train longer: the second length by word."""
    return tasks(scale)[1]


def updates(scale: Scale) -> int:
    """Of the runs that do not train longer."""
    return scale.pick(smoke=20, desk=1000, paper=5000)


def runs(scale: Scale) -> list[Run]:
    return [run for of_side in runs_by_side(scale).values() for run in of_side]


def side_of_keys(scale: Scale) -> dict[str, str]:
    """Key of a run to the name of its side."""
    return {run.key: side for side, of_side in runs_by_side(scale).items() for run in of_side}


def runs_by_side(scale: Scale) -> dict[str, list[Run]]:
    """Name of a side to its runs, those that train longer last."""
    width = scale.pick(smoke=4, desk=32, paper=128)
    training = Training(
        steps=updates(scale),
        batch=32,
        check_every=scale.pick(smoke=10, desk=250, paper=500),
        validation_sequences=scale.pick(smoke=50, desk=2000, paper=2000),
        test_sequences=scale.pick(smoke=50, desk=4000, paper=4000),
        stop_when_solved=False,
    )
    longer = training.replace(steps=LONGER * training.steps)
    probes = (ParameterGradients(every=250), GradientThroughTime(every=scale.pick(smoke=10, desk=250, paper=500)))

    def trained(task: SentenceFirst, side: tuple[Cell, Initialisation], training: Training) -> list[Run]:
        cell, start = side
        return grid(
            Run(task=task, cell=cell, initialisation=start, training=training, probes=probes, embedding=width),
            {"training.learning_rate": RATES[:1] if scale is Scale.SMOKE else RATES},
            seeds=range(scale.pick(smoke=1, desk=3, paper=10)),
        )

    task = trained_longer(scale)
    found = {
        name: [run for one in tasks(scale) for run in trained(one, side, training)]
        for name, side in sides(width).items()
    }
    for name, side in {**sides(width), **sides_told(width, task.steps)}.items():
        found[name] = [*found.get(name, []), *trained(task, side, longer)]
    return found
