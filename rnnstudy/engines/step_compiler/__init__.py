"""From a cell's step in torch operations to C code: traced (`trace`, `graph`, `views`), written (`rows`, `source`,
`kernels`, `templates`, `prelude`) and compiled once on each machine (`library`)."""
