"""The C functions that run a step over all time steps: what stands around the code of a step."""

FORWARD = """
int forward(long steps, long batch, long first, long last, long keep, float *read, const float *const *constants,
            float *saved, const int32_t *slots, float *outputs) {{
  enum {{ SCRATCH = {scratch} }};
  long rows = last - first;
  float *w_rows = calloc(rows * SCRATCH + 1, sizeof(float));
  if (!w_rows) return 1;
{constants}
  memset(saved + first * KEPT, 0, rows * KEPT * sizeof(float));
  for (long t = 0; t < steps; t++) {{
    float *prev_rows = saved + ((keep ? t : t & 1) * batch + first) * KEPT;
    float *now_rows = saved + ((keep ? t + 1 : (t + 1) & 1) * batch + first) * KEPT;
    float *p_rows = read + (t * batch + first) * READ;
    (void)prev_rows; (void)p_rows;
{body}
    if (slots[t] >= 0)
      for (long b = 0; b < rows; b++)
        memcpy(outputs + (slots[t] * batch + first + b) * WIDTH, now_rows + b * KEPT + OUTPUT, WIDTH * sizeof(float));
  }}
  free(w_rows);
  return 0;
}}
"""


BACKWARD = """
/* Steps are summed in blocks: few enough rows to stay in the cache, many enough for sums to stay in registers. */
#define ROWS_IN_BLOCK 256

int backward(long steps, long batch, long first, long last, long observed, float *read, const float *const *constants,
             float *saved, const float *direct, const int32_t *slots, float *at_read, int32_t *exponents,
             float *squares, int32_t *square_exponents, float *totals, int32_t *total_exponent) {{
  enum {{ SCRATCH = {scratch} }};
  long rows = last - first, most = rows < ROWS_IN_BLOCK ? ROWS_IN_BLOCK / rows : 1;
  float *memory = calloc(rows * (SCRATCH + 2 * CARRIED) + most * rows * (WRITTEN + COPIED + 1) + rows, sizeof(float));
  if (!memory) return 1;
  float *w_rows = memory, *cur_rows = w_rows + rows * SCRATCH, *nxt_rows = cur_rows + rows * CARRIED;
  float *out_block = nxt_rows + rows * CARRIED, *aux_block = out_block + most * rows * WRITTEN;
  int32_t *block_exponents = (int32_t *)(aux_block + most * rows * COPIED), *own = block_exponents + most * rows;
{constants}
  memset(totals, 0, TOTALS * sizeof(float));
  *total_exponent = ZERO_EXPONENT;
  for (long b = 0; b < rows; b++) own[b] = ZERO_EXPONENT;
  for (long t = steps - 1; t >= 0; t--) {{
    float *prev_rows = saved + (t * batch + first) * KEPT, *now_rows = saved + ((t + 1) * batch + first) * KEPT;
    float *p_rows = read + (t * batch + first) * READ, *at_rows = at_read + (t * batch + first) * READ;
    float *out_rows = out_block + t % most * rows * WRITTEN, *aux_rows = aux_block + t % most * rows * COPIED;
    (void)prev_rows; (void)now_rows; (void)p_rows; (void)at_rows; (void)out_rows; (void)aux_rows;
    for (long b = 0; b < rows; b++) {{
      float *cur = cur_rows + b * CARRIED;
      if (slots[t] >= 0)
        add_to_row(cur, CARRIED, own + b, CARRIED_OUTPUT, direct + (slots[t] * batch + first + b) * WIDTH, WIDTH);
      if (!in_range({squares})) {{
        float most_of_row = {largest};
        if (most_of_row == 0) own[b] = ZERO_EXPONENT;
        else if (most_of_row < INFINITY) {{
          int32_t n = exponent_of(most_of_row);
          scale(cur, CARRIED, -n);
          own[b] += n;
        }}
      }}
      exponents[t * batch + first + b] = block_exponents[t % most * rows + b] = own[b];
    }}
{body}
    if (observed)
      for (long b = 0; b < rows; b++) {{
        long at = t * batch + first + b;
        int32_t n;
        (void)at; (void)n;
{norms}
      }}
    if (t % most == 0) {{
      long count = steps - t < most ? steps - t : most;
      int32_t shared = *total_exponent;
      for (long row = 0; row < count * rows; row++)
        shared = block_exponents[row] > shared ? block_exponents[row] : shared;
      if (shared != *total_exponent) scale(totals, TOTALS, *total_exponent - shared);
      *total_exponent = shared;
      for (long row = 0; row < count * rows; row++)
        if (block_exponents[row] != shared) scale(out_block + row * WRITTEN, WRITTEN, block_exponents[row] - shared);
{sums}
    }}
    float *swap = cur_rows;
    cur_rows = nxt_rows;
    nxt_rows = swap;
  }}
  free(memory);
  return 0;
}}
"""


NORM = """        squares[{state} * steps * batch + at] = squares_and_exponent({total}, {size}, &n);
        square_exponents[{state} * steps * batch + at] = own[b] + n;"""
