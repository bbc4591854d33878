"""What the Triton kernels become on an sm_90 GPU, found by compiling alone: no GPU is needed.

`python -m benchmarks.sm90 [tf32]` prints one JSON object: for each kernel its registers, bytes of stack (spilt
registers), bytes of shared memory and matrix instructions, for the precision of the launch table or the one named.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from rnnstudy.engines.triton_kernels import elman, lstm
from rnnstudy.engines.triton_kernels.table import TABLE, Launch

TARGET = GPUTarget("cuda", 90, 32)
MODULES: dict[str, Any] = {"Elman": elman, "LSTM": lstm}
WHOLE = ("direct_exponents", "slots", "exponents")
COUNTS = ("time", "steps")
BATCH = 32
TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def compiled(kernel: Any, cell: str, width: int, how: Launch) -> dict[str, int]:
    """What one kernel needs on sm_90, and how many matrix instructions its program holds."""
    constants: dict[str, Any] = {"BATCH": BATCH, "WIDTH": width, "ROWS": how.rows, "PRECISION": how.precision}
    if cell == "Elman":
        constants["ACTIVATION"] = "tanh"
    names = [name for name in kernel.arg_names if name not in constants]
    signature = {name: "i32" if name in COUNTS else "*i32" if name in WHOLE else "*fp32" for name in names}
    source = ASTSource(
        kernel,
        signature=signature | dict.fromkeys(constants, "constexpr"),
        constexprs={(kernel.arg_names.index(name),): value for name, value in constants.items()},
        # As at a launch: torch's arrays begin at multiples of 16 bytes.
        attrs={
            (kernel.arg_names.index(name),): [["tt.divisibility", 16]]
            for name, kind in signature.items()
            if kind.startswith("*")
        },
    )
    made: Any = triton.compile(source, target=TARGET, options={"num_warps": how.warps, "num_stages": how.stages})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        usage, program = (
            subprocess.run([TOOL, option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("-res-usage", "-sass")
        )
    found = re.search(r"REG:(\d+).*?STACK:(\d+)", usage, re.DOTALL)
    if found is None:
        raise RuntimeError(f"cuobjdump told no registers: {usage}")
    return {
        "registers": int(found[1]),
        "stack": int(found[2]),
        "shared": made.metadata.shared,
        "matrix": len(re.findall(r"\bH?G?MMA\.", program)),
    }


def main() -> None:
    table = {}
    for (cell, width), how in TABLE.items():
        if len(sys.argv) > 1:
            how = Launch(how.rows, how.warps, sys.argv[1], how.stages)  # pyright: ignore[reportArgumentType]
        for name in ("forward", "backward"):
            kernel = getattr(MODULES[cell], name)
            table[f"{cell} {width} {name}"] = {**compiled(kernel, cell, width, how), "warps": how.warps}
    print(json.dumps({"triton": triton.__version__, "kernels": table}, indent=1))


if __name__ == "__main__":
    main()
