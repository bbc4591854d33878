# ---
# jupyter:
#   rnnstudy:
#     order: 60
#     experiments: []
# ---

# %% [markdown]
# # The cliff: why gradients explode, in one unit
#
# A vanishing gradient hides the past; an exploding gradient destroys what was learned. Both come from the same product
# of Jacobians. The smallest network that shows this has one unit and no input,
#
# h_t = σ(w h_{t−1} + b).  It starts at h₀, and its loss after T steps is (h_T − 0.7)².
#
# It has only two parameters, so its whole loss surface can be drawn (Pascanu, Mikolov & Bengio 2013, section 2.3 and
# Figure 6; they write x_t = w σ(x_{t−1}) + b, which is the same unit described by its value before the sigmoid). No
# stored run is used on this page: everything is computed here.

# %%
import numpy as np

from rnnstudy import figures
from rnnstudy.figures.single_unit import Unit, descend, saddle_nodes
from rnnstudy.report import Notebook, power_of_ten

here = Notebook("cliff")
unit = Unit()
start, learning_rate, threshold, updates = (6.0, -2.8), 0.3, 1.0, 300
limits = {"not clipped": None, "clipped": threshold}
grid_w, grid_b = np.meshgrid(np.linspace(4.5, 7.0, 26), np.linspace(-3.6, -1.6, 21))
paths, many = (
    {
        name: descend(unit, w, b, learning_rate=learning_rate, updates=updates, threshold=limit)
        for name, limit in limits.items()
    }
    for w, b in (start, (grid_w, grid_b))
)

# %% [markdown]
# ## 1. The wall, and which paths get past it

# %%
free, clipped = paths["not clipped"], paths["clipped"]
crossing = int(np.argmax(free.loss > 2 * free.loss[0]))
hit = int(np.argmax(free.gradient_norm > 10))
low = {name: 100 * float(np.mean(path.loss[-1] < 0.01)) for name, path in many.items()}
here.show(
    figures.loss_surface(
        unit,
        paths,
        many,
        w=np.linspace(3.8, 7.0, 129),
        b=np.linspace(-3.6, -1.6, 121),
        learning_rate=learning_rate,
        threshold=threshold,
    ),
    "loss_surface",
    title=f"At the cliff clipping lets {low['clipped']:.0f} % of all starts descend, instead of "
    f"{low['not clipped']:.0f} %",
    takeaway=f"""
    Two gentle slopes meet in a wall along the dashed straight line. On one side of it the state ends at its low value,
    on the other side at its high value; the target, 0.7, is passed inside the wall. Gradient descent reaches the line
    after {crossing} updates and then jumps back and forth across it, downhill on both sides, as if the wall were not
    there: its steps are longer than the wall is thick. At update {hit} it lands on the wall by chance, where the
    gradient is {free.gradient_norm[hit]:.0f} instead of about {np.median(free.gradient_norm[:hit]):.1g}. Until then
    both paths are the same. Without clipping this single step throws the weights out of the picture, to w =
    {free.w[-1]:.0f} and b = {free.b[-1]:.0f}, where the unit is saturated and the gradient is zero: the path stays
    there (black line and arrow). With clipping it is a step like the others, and the path continues along the wall to a
    loss of {clipped.loss[-1]:.1g}. This starting point was not chosen to produce the result: of {grid_w.size} starting
    points spread over the picture, {low["not clipped"]:.0f} % are at a loss below 0.01 after {updates} updates without
    clipping, and {low["clipped"]:.0f} % with clipping.
    """,
)

# %% [markdown]
# ## 2. The wall grows with the length of the sequence

# %%
weight, lengths = 6.0, (5, 10, 25, 50)
edge = float(unit.cliff(weight))
aside = np.geomspace(1e-9, 0.6, 300)
distances = np.concatenate([-aside[::-1], [0.0], aside])
steepest = {
    length: np.log10(np.hypot(*Unit(steps=length).gradient(weight, edge + distances)).max()) for length in lengths
}
slope = weight * unit.start * (1 - unit.start)
here.show(
    figures.wall_by_length(unit, w=weight, distances=distances, lengths=lengths),
    "wall_by_length",
    title=f"From T = {lengths[0]} to T = {lengths[-1]} the wall gets "
    f"{steepest[lengths[-1]] - steepest[lengths[0]]:.0f} decades steeper",
    takeaway=f"""
    Note the horizontal scale: it is logarithmic on both sides of the cliff, and linear in a narrow strip around it. At
    a distance of 0.1 from the cliff the loss is the same for all but the shortest sequence; T changes how sharply one
    side turns into the other. From T = {lengths[0]} to T = {lengths[-1]} the steepest gradient grows from
    {power_of_ten(steepest[lengths[0]])} to {power_of_ten(steepest[lengths[-1]])}, and the strip in which it is large
    shrinks in the same proportion. On the cliff the state stays at h₀, where each step multiplies a small disturbance
    by w σ′(h₀) = {slope:.2f}, and {lengths[-1]} steps multiply it by {slope ** lengths[-1]:.1g}: this is the exploding
    gradient in closed form. (The narrow dip beside the cliff is the bottom of the valley, where h_T is 0.7.)
    """,
)

# %% [markdown]
# ## 3. What lies behind it: two memories, and the border between them

# %%
(upper_end, _), (lower_end, _) = sorted(saddle_nodes(weight), reverse=True)
here.show(
    figures.bifurcation(unit, w=weight, b=np.linspace(-4.0, -2.0, 81), weights=np.linspace(3.0, 7.0, 801)),
    "bifurcation",
    title="The cliff is the border between two memories",
    takeaway=f"""
    At w = {weight:g} the unit has a stable low state and a stable high state while b lies between {lower_end:.2f} and
    {upper_end:.2f}: one bit of memory. The dashed middle branch is unstable: starting values below it fall, those above
    it rise. Where it crosses h₀, at b = {edge:.2f}, the dots jump from the lower branch to the upper branch: this is
    the cliff. It lies inside the range, not at the saddle-nodes, where a branch begins or ends. Right: below w = 4
    there is no such range; the unit cannot store a bit for ever, and there is no cliff. The property that lets a unit
    store a bit also makes its gradient explode on the border between its two memories and vanish inside each of them.
    """,
)
