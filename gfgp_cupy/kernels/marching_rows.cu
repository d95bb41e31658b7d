// Max-Ent pooling of contiguous planes whose windows overlap, by the march of marching_strip.cu.
//
// float32: each window is worked on by itself, relative to its own extreme element
// (weighted_window.cu). Half types: windows share their elements' weights, relative to one
// reference for the strip (shared_weights.cu). From the row on where that does not hold, because
// windows lie too far from the reference, the strip is worked on window by window; so are all
// strips where lam is large, and windows of more than 25 elements, whose weights would not fit into
// registers.

__device__ __forceinline__ bool shares_weights(acc_t lam) {
  return sizeof(scalar_t) == 2 && TAPS <= 25 && fabs(lam) <= MOST_SHARED_LAM;
}

// Of 128 threads. Where the compiler would choose fewer registers than it needs, or so many that
// too few blocks have room, it is told how many are to have.
#define FLOAT32_BACKWARD (DTYPE_FLOAT32 && WRITE_GRAD_LAM)
#define FLOAT32_SPREAD (DTYPE_FLOAT32 && WRITE_SPREAD)
#define HALF_BACKWARD (!DTYPE_FLOAT32 && (WRITE_GRAD_INPUT || WRITE_GRAD_LAM))
#define HALF_SPREAD (!DTYPE_FLOAT32 && WRITE_SPREAD)
#define BLOCKS(many, few) __launch_bounds__(128, FIT && sizeof(index_t) == 4 ? many : few)

#if KERNEL_H * KERNEL_W <= 9 && STRIDE_H > 1 && STRIDE_W > 1 && FLOAT32_BACKWARD
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

// The windows' references. Branches hold a loop each, since the compiler would find both the least
// and the largest.
__device__ __forceinline__ void find_references(
    acc_t (&reference)[WINDOWS], const Patch& patch, const Parameter& of) {
  if (of.lam < 0) {
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w) {
      acc_t x[TAPS];
      take_window(x, patch, w);
      reference[w] = extreme_of(x, true);
    }
  } else {
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w) {
      acc_t x[TAPS];
      take_window(x, patch, w);
      reference[w] = extreme_of(x, false);
    }
  }
}

__device__ __forceinline__ Window own_window(
    acc_t reference, const Patch& patch, const Columns& columns, int w, const Parameter& of) {
  acc_t x[TAPS], absent[TAPS];
  take_window(x, patch, w);
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const int c = w * STRIDE_W + tap % KERNEL_W;
    const bool edge = !FIT || c < LEFT || c >= LEFT + OWN;
    const acc_t row = patch.absent[tap / KERNEL_W];
    absent[tap] = edge ? row + columns.absent[c] : row;
  }
  return window_about(reference, x, absent, of);
}

// ---------------------------------------------------------------- with shared weights

// A patch whose elements are d, with what is known of its rows.
struct WeighedPatch {
  Patch patch;
  acc_t weight[KERNEL_H][WIDTH], product[KERNEL_H][WIDTH];    // e, e d
  acc_t total[KERNEL_H][WINDOWS], weighted[KERNEL_H][WINDOWS];  // sums over a window's columns
};

// The extreme of the own columns of the row that arrives first.
__device__ __forceinline__ acc_t first_extreme(
    const Patch& patch, const Columns& columns, acc_t lam) {
  acc_t x[WIDTH];
  widen_row(x, patch.raw[0], columns);
  acc_t least = x[LEFT], most = x[LEFT];
#pragma unroll
  for (int c = LEFT + 1; c < LEFT + OWN; ++c) least = min(least, x[c]), most = max(most, x[c]);
  return lam < 0 ? least : most;
}

__device__ __forceinline__ void weigh_row(
    WeighedPatch& weighed, int r, const Columns& columns, const SharedFormula& formula) {
  Patch& patch = weighed.patch;
  const acc_t exponent = patch.absent[r] + formula.exponent;
#pragma unroll
  for (int c = 0; c < WIDTH; ++c) {
    const bool edge = !FIT || c < LEFT || c >= LEFT + OWN;
    patch.x[r][c] -= formula.origin;
    weighed.weight[r][c] = power_of_two(
        fma(formula.scale, patch.x[r][c], edge ? exponent + columns.absent[c] : exponent));
    weighed.product[r][c] = weighed.weight[r][c] * patch.x[r][c];
  }
#pragma unroll
  for (int w = 0; w < WINDOWS; ++w) {
    acc_t total = 0, weighted = 0;
#pragma unroll
    for (int k = 0; k < KERNEL_W; ++k) {
      const int c = w * STRIDE_W + k;
      total = k ? total + weighed.weight[r][c] : weighed.weight[r][c];
      // Not a sum of products, which the compiler may round as this or otherwise.
      weighted = k ? fma(weighed.weight[r][c], patch.x[r][c], weighted) : weighed.product[r][c];
    }
    weighed.total[r][w] = total;
    weighed.weighted[r][w] = weighted;
  }
}

__device__ __forceinline__ void move_down(WeighedPatch& weighed) {
  move_down(weighed.patch);
#pragma unroll
  for (int r = 0; r < KEPT; ++r) {
#pragma unroll
    for (int c = 0; c < WIDTH; ++c) {
      weighed.weight[r][c] = weighed.weight[STRIDE_H + r][c];
      weighed.product[r][c] = weighed.product[STRIDE_H + r][c];
    }
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w) {
      weighed.total[r][w] = weighed.total[STRIDE_H + r][w];
      weighed.weighted[r][w] = weighed.weighted[STRIDE_H + r][w];
    }
  }
}

__device__ __forceinline__ SharedFormula start_weighing(
    WeighedPatch& weighed, const Strip& strip, index_t begin, acc_t lam) {
  start_patch(
      weighed.patch, strip.input, strip.offset, strip.plane, strip.columns, begin,
      strip.part.row_end);
  const SharedFormula formula =
      shared_formula(lam, first_extreme(weighed.patch, strip.columns, lam));
#pragma unroll
  for (int r = 0; r < KEPT; ++r) weigh_row(weighed, r, strip.columns, formula);
  return formula;
}

// Sums over the rows of window `w`.
__device__ __forceinline__ acc_t over_rows(const acc_t (&sums)[KERNEL_H][WINDOWS], int w) {
  acc_t sum = sums[0][w];
#pragma unroll
  for (int r = 1; r < KERNEL_H; ++r) sum += sums[r][w];
  return sum;
}

// The mean of (d - shift)^2.
__device__ __forceinline__ acc_t shared_variance(
    const WeighedPatch& weighed, int w, acc_t shift, acc_t inverse_total) {
  acc_t sum = 0;
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const int r = tap / KERNEL_W, c = w * STRIDE_W + tap % KERNEL_W;
    const acc_t deviation = weighed.patch.x[r][c] - shift;
    sum = fma(weighed.weight[r][c] * deviation, deviation, sum);
  }
  return sum * inverse_total;
}

// ---------------------------------------------------------------- the passes

#if !WRITE_GRAD_INPUT && !WRITE_GRAD_LAM

// Ends at a row where the shared weights do not hold.
__device__ __forceinline__ index_t forward_shared(
    const Strip& strip, acc_t lam, scalar_t* output, scalar_t* spread) {
  WeighedPatch weighed;
  const SharedFormula formula = start_weighing(weighed, strip, strip.part.row_begin, lam);
  return for_each_row(strip.part.row_begin, strip.part.row_end, [&](index_t o) {
    arrive(weighed.patch, strip.plane, strip.columns);
    load_ahead(weighed.patch, KERNEL_H - PADDING_H, strip.plane, strip.columns);
#pragma unroll
    for (int r = KEPT; r < KERNEL_H; ++r) weigh_row(weighed, r, strip.columns, formula);
    acc_t y[COLUMNS], variance[COLUMNS];
    bool all_hold = true;
#pragma unroll
    for (int w = 0; w < COLUMNS; ++w) {
      const acc_t total = over_rows(weighed.total, w), sum = over_rows(weighed.weighted, w);
      const bool exists = FIT || strip.first + w < strip.plane.out_w;
      all_hold &= total_holds(total, exists) & (IS_FLOAT16 || sum_holds(sum));
      const acc_t inverse_total = reciprocal(total);
      y[w] = sum * inverse_total;
      variance[w] = WRITE_SPREAD ? shared_variance(weighed, w, y[w], inverse_total) : 0;
    }
    if (all_hold) store_results(output, spread, strip, o, y, variance);
    move_down(weighed);
    return all_hold;
  }, [] {});
}

__device__ __forceinline__ void forward_alone(
    const Strip& strip, acc_t lam, index_t begin, scalar_t* output, scalar_t* spread) {
  const Parameter of = parameter(lam);
  Patch patch;
  start_patch(patch, strip.input, strip.offset, strip.plane, strip.columns, begin,
      strip.part.row_end);
  for_each_row(begin, strip.part.row_end, [&](index_t o) {
    arrive(patch, strip.plane, strip.columns);
    load_ahead(patch, KERNEL_H - PADDING_H, strip.plane, strip.columns);
    acc_t reference[WINDOWS], y[COLUMNS], deviation[COLUMNS];
    find_references(reference, patch, of);
#pragma unroll
    for (int w = 0; w < COLUMNS; ++w) {
      const Window window = own_window(reference[w], patch, strip.columns, w, of);
      y[w] = mean(window);
      deviation[w] = WRITE_SPREAD ? variance(window) : 0;
    }
    store_results(output, spread, strip, o, y, deviation);
    move_down(patch);
    return true;
  }, [] {});
}

// Reads the strip's part of the input, once but for what it shares with neighbours, and lam; writes
// one output element, and where WRITE_SPREAD the standard deviation, of each own window. Traffic:
// X + O; with the spread X + 2 O.
extern "C" __global__ void BLOCK_BOUNDS max_ent_pool2d_marching_rows_forward(
    const scalar_t* __restrict__ input, const acc_t* __restrict__ lam,
    scalar_t* __restrict__ output, scalar_t* __restrict__ spread, PARAMETERS) {
  const Plane plane = {(index_t)height, (index_t)width, (index_t)out_h, (index_t)out_w};
  const int number = blockIdx.x * 128 + threadIdx.x;
  const Part part = OWN_PART;
  if (part.plane >= planes) return;
  const Strip strip = strip_of(plane, part, input);
  const acc_t lambda = load(lam + LAM_OFFSET(part.plane));
  const index_t begin =
      shares_weights(lambda) ? forward_shared(strip, lambda, output, spread) : part.row_begin;
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

// Ends at a row where the shared weights do not hold.
__device__ __forceinline__ index_t backward_shared(
    const Strip& strip, Gradients gradients, acc_t lam, index_t begin, acc_t& lam_part) {
  WeighedPatch weighed;
  const SharedFormula formula = start_weighing(weighed, strip, begin, lam);
  acc_t gradient[KERNEL_H][OWN];
#pragma unroll
  for (int r = 0; r < KEPT; ++r) {
#pragma unroll
    for (int c = 0; c < OWN; ++c) gradient[r][c] = gradients.added;
  }
  return for_each_row(begin, strip.part.row_end, [&](index_t o) {
    arrive(weighed.patch, strip.plane, strip.columns);
    const RawWindows arrived = gradients.raw;
    load_ahead(weighed.patch, KERNEL_H - PADDING_H, strip.plane, strip.columns);
    load_gradients_of(gradients, strip, o + 1);
#pragma unroll
    for (int r = KEPT; r < KERNEL_H; ++r) weigh_row(weighed, r, strip.columns, formula);
    acc_t row_slope[OWN], row_level[OWN], row_part = 0;
    bool all_hold = true;
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w) {
      const acc_t total = over_rows(weighed.total, w), sum = over_rows(weighed.weighted, w);
      const bool exists = window_exists(strip, w);
      all_hold &= total_holds(total, exists);
      const acc_t inverse_total = reciprocal(total);
      const acc_t shift = fma(sum, inverse_total, (acc_t)0);
      const acc_t part = window_number(arrived, w) * inverse_total;
      if (WRITE_GRAD_LAM && is_own(w)) {
        const acc_t spread = shared_variance(weighed, w, shift, 1);
        row_part = exists ? fma(part, spread, row_part) : row_part;
      }
      const Shares own = shares(formula, part, shift);
      all_hold &= sum_holds(exists ? own.level : sum);
      const acc_t a = exists ? own.slope : 0, c = exists ? own.level : 0;
#pragma unroll
      for (int k = 0; k < KERNEL_W; ++k) {
        const int column = w * STRIDE_W + k - LEFT;
        if (column < 0 || column >= OWN) continue;
        // Window w is the first that holds the column, or the one before has set the sums.
        const bool first = w == 0 || k + STRIDE_W >= KERNEL_W;
        row_slope[column] = first ? a : row_slope[column] + a;
        row_level[column] = first ? c : row_level[column] + c;
      }
    }
    if (all_hold && o >= strip.part.row_begin) lam_part += row_part;
    if (WRITE_GRAD_INPUT) {
#pragma unroll
      for (int r = 0; r < KERNEL_H; ++r) {
#pragma unroll
        for (int c = 0; c < OWN; ++c) {
          const acc_t above = r < KEPT ? gradient[r][c] : gradients.added;
          gradient[r][c] = fma(row_slope[c], weighed.product[r][LEFT + c],
                               fma(row_level[c], weighed.weight[r][LEFT + c], above));
        }
      }
      give_rows(gradients, strip, all_hold, gradient);
    }
    move_down(weighed);
    return all_hold;
  }, [&] { store_last_rows(gradients, strip, max(begin, strip.part.row_end), gradient); });
}

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
    if (TAPS <= 25) find_references(reference, patch, of);
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w) {
      const bool exists = window_exists(strip, w);
      const acc_t grad = window_number(arrived, w);
      if (TAPS > 25) {  // here, so that no register has to keep it
        acc_t x[TAPS];
        take_window(x, patch, w);
        reference[w] = of.lam < 0 ? extreme_of(x, true) : extreme_of(x, false);
      }
      const Window window = own_window(reference[w], patch, strip.columns, w, of);
      if (WRITE_GRAD_LAM && is_own(w) && o >= strip.part.row_begin && exists) {
        lam_part = fma(grad, variance(window), lam_part);
      }
      if (WRITE_GRAD_INPUT) {
        const Sent back = sent(window, of, grad);
#pragma unroll
        for (int tap = 0; tap < TAPS; ++tap) {
          const int r = tap / KERNEL_W, c = w * STRIDE_W + tap % KERNEL_W - LEFT;
          if (c < 0 || c >= OWN) continue;
          const acc_t sum = received(window, back, tap, gradient[r][c]);
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
extern "C" __global__ void BLOCK_BOUNDS max_ent_pool2d_marching_rows_backward(
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
    if (shares_weights(lambda)) {
      const index_t end = backward_shared(
          strip, start_gradients(strip, grad_output, grad_input, added, begin), lambda, begin,
          lam_part);
      done = end >= part.row_end;
      // The rest is a strip of its own.
      strip.part.row_begin = max(end, part.row_begin);
      begin = max(strip.part.row_begin - HALO_H, (index_t)0);
    }
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
