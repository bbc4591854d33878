"""Gradient norms of the parameters, before and after clipping."""

from typing import ClassVar

from rnnstudy.optimisers.clipping import global_norms, replica_norms
from rnnstudy.probes.probe import Moment, Probe
from rnnstudy.probes.reading import Reading


class ParameterGradients(Probe):
    """log10 ‖dL/dW‖ of every parameter before clipping, and of all parameters together before and after clipping.

    The norm is Euclidean over the entries of a parameter; the global norm is the root of the sum of squares over the
    parameters of a replica. L is the optimised objective. Readings: `gradient/W_hh_before`, `gradient/global_before`,
    `gradient/global_after`. Unit: log10; −inf (an exact zero) and non-finite values are absent.
    """

    source: ClassVar[str] = "Pascanu, Mikolov & Bengio 2013, section 3"

    def read(self, moment: Moment) -> list[Reading]:
        if moment.stage != "training":
            return []
        norms = {f"{name}_before": replica_norms(gradient) for name, gradient in moment.before.items()}
        norms["global_before"] = global_norms(moment.before)
        norms["global_after"] = global_norms(moment.after)
        return [Reading(f"gradient/{name}", values.log10(), (), "log10") for name, values in norms.items()]
