// Pooling of contiguous planes whose windows overlap, by the march of marching_strip.cu.
//
// Each window is worked on by itself (weighted_window.cu). Half types, where the formula has such
// functions (SHARES): windows share what is made of their elements, relative to what a strip has in
// common (shared_weights.cu). From the row on where that does not hold, the strip is worked on
// window by window; so are all strips where the formula does not try, and windows of more than 25
// elements, for which there are not enough registers.

// Of 128 threads. Where the compiler would choose fewer registers than it needs, or so many that
// too few blocks have room, it is told how many are to have.
#define FLOAT32_BACKWARD (DTYPE_FLOAT32 && WRITE_GRAD_LAM)
#define FLOAT32_SPREAD (DTYPE_FLOAT32 && WRITE_SPREAD)
#define HALF_BACKWARD (!DTYPE_FLOAT32 && (WRITE_GRAD_INPUT || WRITE_GRAD_LAM))
#define HALF_SPREAD (!DTYPE_FLOAT32 && WRITE_SPREAD)
#define BLOCKS(many, few) __launch_bounds__(128, FIT && sizeof(index_t) == 4 ? many : few)

#if !SHARES
// Window functions differ in what they take.
#define BLOCK_BOUNDS BLOCKS(WRITE_GRAD_INPUT || WRITE_GRAD_LAM ? 2 : TAPS <= 9 ? 4 : 3, 2)
#elif KERNEL_H * KERNEL_W <= 9 && STRIDE_H > 1 && STRIDE_W > 1 && FLOAT32_BACKWARD
#define BLOCK_BOUNDS BLOCKS(5, 3)
#elif KERNEL_H * KERNEL_W <= 9 && STRIDE_H > 1 && STRIDE_W > 1 && FLOAT32_SPREAD
#define BLOCK_BOUNDS BLOCKS(7, 5)
#elif KERNEL_H * KERNEL_W <= 9 && STRIDE_H > 1 && STRIDE_W > 1 && HALF_BACKWARD
#define BLOCK_BOUNDS BLOCKS(WRITE_GRAD_LAM && IS_FLOAT16 ? 3 : 4, 2)
#elif KERNEL_H * KERNEL_W <= 9 && STRIDE_H > 1 && STRIDE_W > 1 && HALF_SPREAD
#define BLOCK_BOUNDS BLOCKS(IS_FLOAT16 ? 5 : 6, 3)
#elif KERNEL_H * KERNEL_W <= 9 && FLOAT32_BACKWARD
#define BLOCK_BOUNDS BLOCKS(3, 2)
#elif (KERNEL_H * KERNEL_W <= 16 || STRIDE_H > 2) && (HALF_BACKWARD || HALF_SPREAD)
#define BLOCK_BOUNDS BLOCKS(2, 2)
#elif KERNEL_H * KERNEL_W > 25 && (WRITE_SPREAD || WRITE_GRAD_INPUT || WRITE_GRAD_LAM)
#define BLOCK_BOUNDS __launch_bounds__(128, 2)
#else
#define BLOCK_BOUNDS __launch_bounds__(128)
#endif

// ---------------------------------------------------------------- window by window

// The elements of window `w` of the patch, counted from the first that reaches into it.
__device__ __forceinline__ void take_window(acc_t (&x)[TAPS], const Patch& patch, int w) {
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    x[tap] = patch.x[tap / KERNEL_W][w * STRIDE_W + tap % KERNEL_W];
  }
}

__device__ __forceinline__ State own_state(
    acc_t reference, const Patch& patch, const Columns& columns, int w, const Parameter& of) {
  acc_t x[TAPS], absent[TAPS];
  take_window(x, patch, w);
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const int c = w * STRIDE_W + tap % KERNEL_W;
    const acc_t row = patch.absent[tap / KERNEL_W];
    absent[tap] = MAY_BE_ABSENT(c) ? row + columns.absent[c] : row;
  }
  return state_about(reference, x, absent, of);
}

// ---------------------------------------------------------------- windows that share

#if SHARES

__device__ __forceinline__ bool is_shared(acc_t lam) {
  return sizeof(scalar_t) == 2 && TAPS <= 25 && may_share(lam);
}

// There is room for products.
typedef SharedRows<Patch, true> Rows;

__device__ __forceinline__ void prepare_row(
    Rows& rows, int r, const Columns& columns, const SharedFormula& formula) {
  prepare_row(rows, r, [&](int c) { return rows.x[r][c]; }, rows.absent[r], columns, formula);
}

// The formula follows from the own columns of the row that arrives first.
__device__ __forceinline__ SharedFormula start_rows(
    Rows& rows, const Strip& strip, index_t begin, acc_t lam) {
  start_patch(
      rows, strip.input, strip.offset, strip.plane, strip.columns, begin, strip.part.row_end);
  acc_t x[WIDTH];
  widen_row(x, rows.next[0], strip.columns);
  const SharedFormula formula =
      shared_formula(lam, LEFT, LEFT + OWN, [&](int c) { return x[c]; });
#pragma unroll
  for (int r = 0; r < KEPT; ++r) prepare_row(rows, r, strip.columns, formula);
  return formula;
}

#endif

// ---------------------------------------------------------------- the passes

#if !WRITE_GRAD_INPUT && !WRITE_GRAD_LAM

#if SHARES

// Ends at a row where what windows share does not hold.
__device__ __forceinline__ index_t forward_shared(
    const Strip& strip, acc_t lam, scalar_t* output, scalar_t* spread) {
  Rows rows;
  const SharedFormula formula = start_rows(rows, strip, strip.part.row_begin, lam);
  return for_each_row(strip.part.row_begin, strip.part.row_end, [&](index_t o) {
    arrive(rows, strip.plane, strip.columns);
    load_ahead(rows, KERNEL_H - PADDING_H, strip.plane, strip.columns);
#pragma unroll
    for (int r = KEPT; r < KERNEL_H; ++r) prepare_row(rows, r, strip.columns, formula);
    acc_t y[TILE], sensitivity[TILE];
    bool all_hold = true;
#pragma unroll
    for (int w = 0; w < TILE; ++w) {
      const bool exists = FIT || strip.first + w < strip.plane.out_w;
      const SharedOutput of = pool_shared(rows, w, formula, exists, all_hold);
      y[w] = of.output;
      sensitivity[w] = of.sensitivity;
    }
    if (all_hold) store_results(output, spread, strip, o, y, sensitivity);
    move_down(rows);
    move_rows_down(rows);
    return all_hold;
  }, [] {});
}

#endif

__device__ __forceinline__ void forward_alone(
    const Strip& strip, acc_t lam, index_t begin, scalar_t* output, scalar_t* spread) {
  const Parameter of = parameter(lam);
  Patch patch;
  start_patch(patch, strip.input, strip.offset, strip.plane, strip.columns, begin,
      strip.part.row_end);
  for_each_row(begin, strip.part.row_end, [&](index_t o) {
    arrive(patch, strip.plane, strip.columns);
    load_ahead(patch, KERNEL_H - PADDING_H, strip.plane, strip.columns);
    acc_t reference[WINDOWS], y[TILE], sensitivity[TILE];
    find_references(reference, of.lam, [&](acc_t(&x)[TAPS], int w) { take_window(x, patch, w); });
#pragma unroll
    for (int w = 0; w < TILE; ++w) {
      const State state = own_state(reference[w], patch, strip.columns, w, of);
      y[w] = output_of(state);
      sensitivity[w] = WRITE_SPREAD ? sensitivity_of(state) : 0;
    }
    store_results(output, spread, strip, o, y, sensitivity);
    move_down(patch);
    return true;
  }, [] {});
}

// Reads the strip's part of the input, once but for what it shares with neighbours, and lam; writes
// one output element, and where WRITE_SPREAD the spread, of each own window. Traffic:
// X + O; with the spread X + 2 O.
extern "C" __global__ void BLOCK_BOUNDS KERNEL(marching_rows_forward)(
    const scalar_t* __restrict__ input, const acc_t* __restrict__ lam,
    scalar_t* __restrict__ output, scalar_t* __restrict__ spread, PARAMETERS) {
  const Plane plane = {(index_t)height, (index_t)width, (index_t)out_h, (index_t)out_w};
  const int number = blockIdx.x * 128 + threadIdx.x;
  const Part part = OWN_PART;
  if (part.plane >= planes) return;
  const Strip strip = strip_of(plane, part, input);
  const acc_t lambda = load(lam + LAM_OFFSET(part.plane));
  index_t begin = part.row_begin;
#if SHARES
  if (is_shared(lambda)) begin = forward_shared(strip, lambda, output, spread);
#endif
  if (begin < part.row_end) forward_alone(strip, lambda, begin, output, spread);
}

#else

// What the backward pass keeps for the own columns of the patch's rows.
struct Gradients {
  const scalar_t* grad_output;
  RawWindows raw;
  scalar_t* grad_input;
  index_t first;      // offset of the first own row's own columns
  index_t row, rows;  // the patch's first row, counted from the first own one; number of own ones
  acc_t added;     // to every gradient
};

__device__ __forceinline__ void load_gradients_of(
    Gradients& gradients, const Strip& strip, index_t o) {
  const index_t row = min(o, strip.plane.out_h - 1);
  load_windows(gradients.raw, gradients.grad_output + (window_offset(strip, row)), strip);
}

__device__ __forceinline__ Gradients start_gradients(
    const Strip& strip, const scalar_t* grad_output, scalar_t* grad_input, acc_t added,
    index_t begin) {
  const Plane& plane = strip.plane;
  const index_t first = max(strip.part.row_begin * STRIDE_H - PADDING_H, (index_t)0);
  Gradients gradients;
  gradients.added = added;
  gradients.grad_output = grad_output;
  gradients.grad_input = grad_input;
  gradients.first = strip.offset + first * plane.width;
  gradients.row = begin * STRIDE_H - PADDING_H - first;
  gradients.rows = plane.height - first;
  load_gradients_of(gradients, strip, begin);
  return gradients;
}

// Stores row r of the patch, if it is an own one and the numbers hold.
__device__ __forceinline__ void store_own_row(
    const Gradients& gradients, const Strip& strip, bool hold, int r,
    const acc_t (&gradient)[OWN]) {
  const index_t row = gradients.row + r;
  if (hold && in_range(row, gradients.rows)) {
    store_gradients(
        gradients.grad_input + (gradients.first + row * strip.plane.width), strip, gradient);
  }
}

// Stores the own rows that no window below reaches; the others move up.
__device__ __forceinline__ void give_rows(
    Gradients& gradients, const Strip& strip, bool hold, acc_t (&gradient)[KERNEL_H][OWN]) {
#pragma unroll
  for (int r = 0; r < STRIDE_H; ++r) store_own_row(gradients, strip, hold, r, gradient[r]);
  gradients.row += STRIDE_H;
#pragma unroll
  for (int r = 0; r < KEPT; ++r) {
#pragma unroll
    for (int c = 0; c < OWN; ++c) gradient[r][c] = gradient[STRIDE_H + r][c];
  }
}

// Stores the own rows from those of window row `o` on, which receive nothing more.
__device__ __forceinline__ void store_last_rows(
    Gradients& gradients, const Strip& strip, index_t o, acc_t (&gradient)[KERNEL_H][OWN]) {
  for (; WRITE_GRAD_INPUT && o < strip.part.input_end; ++o) {
#pragma unroll
    for (int r = KEPT; r < KERNEL_H; ++r) {
#pragma unroll
      for (int c = 0; c < OWN; ++c) gradient[r][c] = gradients.added;
    }
    give_rows(gradients, strip, true, gradient);
  }
}

#if SHARES

// Ends at a row where what windows share does not hold.
__device__ __forceinline__ index_t backward_shared(
    const Strip& strip, Gradients gradients, acc_t lam, index_t begin, acc_t& lam_part) {
  Rows rows;
  const SharedFormula formula = start_rows(rows, strip, begin, lam);
  acc_t gradient[KERNEL_H][OWN];
#pragma unroll
  for (int r = 0; r < KEPT; ++r) {
#pragma unroll
    for (int c = 0; c < OWN; ++c) gradient[r][c] = gradients.added;
  }
  return for_each_row(begin, strip.part.row_end, [&](index_t o) {
    arrive(rows, strip.plane, strip.columns);
    const RawWindows arrived = gradients.raw;
    load_ahead(rows, KERNEL_H - PADDING_H, strip.plane, strip.columns);
    load_gradients_of(gradients, strip, o + 1);
#pragma unroll
    for (int r = KEPT; r < KERNEL_H; ++r) prepare_row(rows, r, strip.columns, formula);
    acc_t row_part = 0;
    Shares shares[OWN];  // of the row's windows that hold an own column
    bool all_hold = true;
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w) {
      const Shares own = send_shared_back(
          rows, w, formula, [&] { return window_number(arrived, w); },
          [&] { return window_exists(strip, w); }, is_own(w), [](bool exists) { return exists; },
          row_part, all_hold);
      add_shares(shares, w, own);
    }
    if (all_hold && o >= strip.part.row_begin) lam_part += row_part;
    if (WRITE_GRAD_INPUT) {
#pragma unroll
      for (int r = 0; r < KERNEL_H; ++r) {
#pragma unroll
        for (int c = 0; c < OWN; ++c) {
          const acc_t above = r < KEPT ? gradient[r][c] : gradients.added;
          gradient[r][c] = received(rows, r, LEFT + c, shares[c], above);
        }
      }
      give_rows(gradients, strip, all_hold, gradient);
    }
    move_down(rows);
    move_rows_down(rows);
    return all_hold;
  }, [&] { store_last_rows(gradients, strip, max(begin, strip.part.row_end), gradient); });
}

#endif

__device__ __forceinline__ void backward_alone(
    const Strip& strip, Gradients gradients, acc_t lam, index_t begin, acc_t& lam_part) {
  const Parameter of = parameter(lam);
  Patch patch;
  start_patch(patch, strip.input, strip.offset, strip.plane, strip.columns, begin,
      strip.part.row_end);
  acc_t gradient[KERNEL_H][OWN];
#pragma unroll
  for (int r = 0; r < KEPT; ++r) {
#pragma unroll
    for (int c = 0; c < OWN; ++c) gradient[r][c] = gradients.added;
  }
  for_each_row(begin, strip.part.row_end, [&](index_t o) {
    arrive(patch, strip.plane, strip.columns);
    const RawWindows arrived = gradients.raw;
    load_ahead(patch, KERNEL_H - PADDING_H, strip.plane, strip.columns);
    load_gradients_of(gradients, strip, o + 1);
#pragma unroll
    for (int r = KEPT; r < KERNEL_H; ++r) {
#pragma unroll
      for (int c = 0; c < OWN; ++c) gradient[r][c] = gradients.added;
    }
    acc_t reference[WINDOWS];
    if (TAPS <= 25) {
      find_references(reference, of.lam, [&](acc_t(&x)[TAPS], int w) { take_window(x, patch, w); });
    }
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w) {
      const bool exists = window_exists(strip, w);
      const acc_t grad = window_number(arrived, w);
      if (TAPS > 25) {  // here, so that no register has to keep it
        acc_t x[TAPS];
        take_window(x, patch, w);
        reference[w] = reference_of(x, of.lam);
      }
      const State state = own_state(reference[w], patch, strip.columns, w, of);
      if (WRITE_GRAD_LAM && is_own(w) && o >= strip.part.row_begin && exists) {
        lam_part = fma(grad, sensitivity_of(state), lam_part);
      }
      if (WRITE_GRAD_INPUT) {
        const Sent back = sent(state, of, grad);
#pragma unroll
        for (int tap = 0; tap < TAPS; ++tap) {
          const int r = tap / KERNEL_W, c = w * STRIDE_W + tap % KERNEL_W - LEFT;
          if (c < 0 || c >= OWN) continue;
          const acc_t sum = received(state, back, tap, gradient[r][c]);
          gradient[r][c] = exists ? sum : gradient[r][c];
        }
      }
    }
    if (WRITE_GRAD_INPUT) {
      give_rows(gradients, strip, true, gradient);
    }
    move_down(patch);
    return true;
  }, [&] { store_last_rows(gradients, strip, max(begin, strip.part.row_end), gradient); });
}

// Reads the strip's part of the input and of grad_output, with the neighbours' windows that reach
// into it, and lam; writes each own element's gradient, and where WRITE_GRAD_LAM, for `lanes`
// threads of a plane together, their part of lam's gradient. Traffic: 2 X + O.
extern "C" __global__ void BLOCK_BOUNDS KERNEL(marching_rows_backward)(
    const scalar_t* __restrict__ grad_output, const scalar_t* __restrict__ input,
    const acc_t* __restrict__ lam, const acc_t* __restrict__ mean_grad,
    scalar_t* __restrict__ grad_input, acc_t* __restrict__ grad_lam, PARAMETERS) {
  const Plane plane = {(index_t)height, (index_t)width, (index_t)out_h, (index_t)out_w};
  const int number = blockIdx.x * 128 + threadIdx.x;
  const Part part = OWN_PART;
  // Input rows below the last window are the last strip's, not those of threads too many.
  const bool owns = part.plane < planes && part.row_begin < plane.out_h;
  if (!WRITE_GRAD_LAM && !owns) return;
  acc_t lam_part = 0;
  if (!WRITE_GRAD_LAM || owns) {
    Strip strip = strip_of(plane, part, input);
    const acc_t lambda = load(lam + LAM_OFFSET(part.plane));
    const acc_t added = ADD_MEAN_GRAD ? load(mean_grad + part.plane) : 0;
    index_t begin = max(part.row_begin - HALO_H, (index_t)0);
    bool done = false;
#if SHARES
    if (is_shared(lambda)) {
      const index_t end = backward_shared(
          strip, start_gradients(strip, grad_output, grad_input, added, begin), lambda, begin,
          lam_part);
      done = end >= part.row_end;
      // The rest is a strip of its own.
      strip.part.row_begin = max(end, part.row_begin);
      begin = max(strip.part.row_begin - HALO_H, (index_t)0);
    }
#endif
    if (!done) {
      backward_alone(
          strip, start_gradients(strip, grad_output, grad_input, added, begin), lambda, begin,
          lam_part);
    }
  }
  if (WRITE_GRAD_LAM) {
    for (int half = (int)lanes / 2; half; half /= 2) {
      lam_part += __shfl_down_sync(0xffffffffu, lam_part, half, 32);
    }
    if (part.plane < planes && threadIdx.x % (int)lanes == 0) {
      const int n = divide(part.plane, channels, by_channels);
      const int chunks = (int)plane_threads / (int)lanes;
      const int chunk = (number - part.plane * (int)plane_threads) / (int)lanes;
      store(grad_lam + (n * chunks + chunk) * (index_t)channels + part.plane -
                n * (int)channels,
            lam_part);
    }
  }
}

#endif
