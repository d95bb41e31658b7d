// Max-Ent pooling of contiguous planes whose windows overlap, by the march of marching_strip.cu.
//
// float32: each window is worked on by itself, relative to its own extreme element
// (weighted_window.cu). Half types: windows share their elements' weights, relative to one
// reference for the strip (shared_weights.cu). From the row on where that does not hold, because
// windows lie too far from the reference, the strip is worked on window by window.

#define SHARED (sizeof(scalar_t) == 2)

// Of 128 threads. Where the compiler would choose fewer registers than it needs, or so many that
// too few blocks have room, it is told how many are to have.
#define FLOAT32_BACKWARD (DTYPE_FLOAT32 && WRITE_GRAD_LAM)
#define FLOAT32_SPREAD (DTYPE_FLOAT32 && WRITE_SPREAD)
#define HALF_BACKWARD (!DTYPE_FLOAT32 && (WRITE_GRAD_INPUT || WRITE_GRAD_LAM))
#define HALF_SPREAD (!DTYPE_FLOAT32 && WRITE_SPREAD)
#define BLOCKS(many, few) __launch_bounds__(128, FIT && sizeof(index_t) == 4 ? many : few)

#if KERNEL_H * KERNEL_W <= 9 && STRIDE_H > 1 && STRIDE_W > 1 && FLOAT32_BACKWARD
#define BLOCK_BOUNDS BLOCKS(5, 4)
#elif KERNEL_H * KERNEL_W <= 9 && STRIDE_H > 1 && STRIDE_W > 1 && FLOAT32_SPREAD
#define BLOCK_BOUNDS BLOCKS(6, 5)
#elif KERNEL_H * KERNEL_W <= 9 && STRIDE_H > 1 && STRIDE_W > 1 && HALF_BACKWARD
#define BLOCK_BOUNDS BLOCKS(3, 2)
#elif KERNEL_H * KERNEL_W <= 9 && STRIDE_H > 1 && STRIDE_W > 1 && HALF_SPREAD
#define BLOCK_BOUNDS BLOCKS(5, 3)
#elif KERNEL_H * KERNEL_W <= 16 && (HALF_BACKWARD || HALF_SPREAD)
#define BLOCK_BOUNDS BLOCKS(2, 2)
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
      reference[w] = chosen(x, [](acc_t a, acc_t b) { return min(a, b); });
    }
  } else {
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w) {
      acc_t x[TAPS];
      take_window(x, patch, w);
      reference[w] = chosen(x, [](acc_t a, acc_t b) { return max(a, b); });
    }
  }
}

__device__ __forceinline__ Window own_window(
    const Patch& patch, const Columns& columns, int w, acc_t reference, const Parameter& of) {
  acc_t x[TAPS], absent[TAPS];
  take_window(x, patch, w);
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const int c = w * STRIDE_W + tap % KERNEL_W;
    const bool edge = !FIT || c < LEFT || c >= LEFT + OWN;
    const acc_t row = patch.absent[tap / KERNEL_W];
    absent[tap] = edge ? row + columns.absent[c] : row;
  }
  return window_of(x, absent, reference, of);
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
      weighed.patch, strip.input, strip.plane, strip.columns, begin, strip.part.row_end);
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
  output += window_offset(strip, strip.part.row_begin);
  if (WRITE_SPREAD) spread += window_offset(strip, strip.part.row_begin);
  WeighedPatch weighed;
  const SharedFormula formula = start_weighing(weighed, strip, strip.part.row_begin, lam);
  return for_each_row(strip.part.row_begin, strip.part.row_end, [&](index_t o) {
    arrive(weighed.patch, strip.columns);
    load_ahead(weighed.patch, strip.plane, strip.columns);
#pragma unroll
    for (int r = KEPT; r < KERNEL_H; ++r) weigh_row(weighed, r, strip.columns, formula);
    acc_t y[COLUMNS], variance[COLUMNS];
    bool all_hold = true;
#pragma unroll
    for (int w = 0; w < COLUMNS; ++w) {
      const acc_t total = over_rows(weighed.total, w), sum = over_rows(weighed.weighted, w);
      const bool exists = FIT || strip.first + w < strip.plane.out_w;
      all_hold &= exists ? holds(total, sum) : are_finite(total, sum);
      const acc_t inverse_total = reciprocal(total);
      y[w] = sum * inverse_total;
      variance[w] = WRITE_SPREAD ? shared_variance(weighed, w, y[w], inverse_total) : 0;
    }
    if (!all_hold) return false;
    store_results(output, spread, strip, y, variance);
    move_down(weighed);
    return true;
  });
}

__device__ __forceinline__ void forward_alone(
    const Strip& strip, acc_t lam, index_t begin, scalar_t* output, scalar_t* spread) {
  output += window_offset(strip, begin);
  if (WRITE_SPREAD) spread += window_offset(strip, begin);
  const Parameter of = parameter(lam);
  Patch patch;
  start_patch(patch, strip.input, strip.plane, strip.columns, begin, strip.part.row_end);
  for_each_row(begin, strip.part.row_end, [&](index_t o) {
    arrive(patch, strip.columns);
    load_ahead(patch, strip.plane, strip.columns);
    acc_t reference[WINDOWS], y[COLUMNS], deviation[COLUMNS];
    find_references(reference, patch, of);
#pragma unroll
    for (int w = 0; w < COLUMNS; ++w) {
      const Window window = own_window(patch, strip.columns, w, reference[w], of);
      acc_t x[TAPS];
      take_window(x, patch, w);
      y[w] = mean(x, window);
      deviation[w] = WRITE_SPREAD ? variance(window) : 0;
    }
    store_results(output, spread, strip, y, deviation);
    move_down(patch);
    return true;
  });
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
      SHARED ? forward_shared(strip, lambda, output, spread) : part.row_begin;
  if (begin < part.row_end) forward_alone(strip, lambda, begin, output, spread);
}

#else

// What the backward pass keeps for the own columns of the patch's rows.
struct Gradients {
  const scalar_t* next;  // row of grad_output, where the own windows' lie
  RawWindows raw;
  scalar_t* to;          // the patch's first row of grad_input
  acc_t added;           // to every gradient
};

__device__ __forceinline__ Gradients start_gradients(
    const Strip& strip, const scalar_t* grad_output, scalar_t* grad_input, acc_t added,
    index_t begin) {
  const Plane& plane = strip.plane;
  Gradients gradients;
  gradients.added = added;
  gradients.next = grad_output + window_offset(strip, min(begin, plane.out_h - 1));
  gradients.to = grad_input + strip.part.plane * (plane.height * plane.width) +
                 (begin * STRIDE_H - PADDING_H) * plane.width + strip.part.group * OWN;
  load_windows(gradients.raw, gradients.next, strip);
  return gradients;
}

__device__ __forceinline__ void load_gradients_ahead(
    Gradients& gradients, const Strip& strip, index_t o) {
  if (o + 1 < strip.part.row_end) gradients.next += strip.plane.out_w;
  load_windows(gradients.raw, gradients.next, strip);
}

// Stores row r of the patch of window row o, if it is an own one.
__device__ __forceinline__ void store_own_row(
    Gradients& gradients, const Strip& strip, index_t o, int r, const acc_t (&gradient)[OWN]) {
  const index_t row = o * STRIDE_H - PADDING_H + r;
  if (o >= strip.part.row_begin && row >= 0 && row < strip.plane.height) {
    store_gradients(gradients.to, strip, gradient);
  }
  gradients.to += strip.plane.width;
}

// Stores the own rows that no window below row `o` reaches; the others move up.
__device__ __forceinline__ void give_rows(
    Gradients& gradients, const Strip& strip, index_t o, acc_t (&gradient)[KERNEL_H][OWN]) {
#pragma unroll
  for (int r = 0; r < STRIDE_H; ++r) store_own_row(gradients, strip, o, r, gradient[r]);
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
    give_rows(gradients, strip, o, gradient);
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
  const index_t end = for_each_row(begin, strip.part.row_end, [&](index_t o) {
    arrive(weighed.patch, strip.columns);
    const RawWindows arrived = gradients.raw;
    load_ahead(weighed.patch, strip.plane, strip.columns);
    load_gradients_ahead(gradients, strip, o);
#pragma unroll
    for (int r = KEPT; r < KERNEL_H; ++r) weigh_row(weighed, r, strip.columns, formula);
    acc_t row_slope[OWN], row_level[OWN], row_part = 0;
    bool all_hold = true;
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w) {
      const acc_t total = over_rows(weighed.total, w), sum = over_rows(weighed.weighted, w);
      const bool exists = window_exists(strip, w);
      all_hold &= exists ? holds(total, sum) : are_finite(total, sum);
      const acc_t inverse_total = reciprocal(total);
      const acc_t shift = fma(sum, inverse_total, (acc_t)0);
      const acc_t part = window_number(arrived, w) * inverse_total;
      const bool mine = FIRST + w >= 0 && FIRST + w < COLUMNS;
      if (WRITE_GRAD_LAM && mine) {
        const acc_t spread = shared_variance(weighed, w, shift, 1);
        row_part = exists ? fma(part, spread, row_part) : row_part;
      }
      // An infinite slope times a product of 0 were NaN.
      const acc_t own_slope = within_range(formula.lam * part);
      const acc_t own_level = fma(-own_slope, shift, part);
      const acc_t a = exists ? own_slope : 0, c = exists ? own_level : 0;
#pragma unroll
      for (int k = 0; k < KERNEL_W; ++k) {
        const int own = w * STRIDE_W + k - LEFT;
        if (own < 0 || own >= OWN) continue;
        // Window w is the first that holds the column, or the one before has set the sums.
        const bool first = w == 0 || k + STRIDE_W >= KERNEL_W;
        row_slope[own] = first ? a : row_slope[own] + a;
        row_level[own] = first ? c : row_level[own] + c;
      }
    }
    if (!all_hold) return false;
    if (o >= strip.part.row_begin) lam_part += row_part;
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
      give_rows(gradients, strip, o, gradient);
    }
    move_down(weighed);
    return true;
  });
  if (end >= strip.part.row_end) store_last_rows(gradients, strip, end, gradient);
  return end;
}

__device__ __forceinline__ void backward_alone(
    const Strip& strip, Gradients gradients, acc_t lam, index_t begin, acc_t& lam_part) {
  const Parameter of = parameter(lam);
  Patch patch;
  start_patch(patch, strip.input, strip.plane, strip.columns, begin, strip.part.row_end);
  acc_t gradient[KERNEL_H][OWN];
#pragma unroll
  for (int r = 0; r < KEPT; ++r) {
#pragma unroll
    for (int c = 0; c < OWN; ++c) gradient[r][c] = gradients.added;
  }
  for_each_row(begin, strip.part.row_end, [&](index_t o) {
    arrive(patch, strip.columns);
    const RawWindows arrived = gradients.raw;
    load_ahead(patch, strip.plane, strip.columns);
    load_gradients_ahead(gradients, strip, o);
#pragma unroll
    for (int r = KEPT; r < KERNEL_H; ++r) {
#pragma unroll
      for (int c = 0; c < OWN; ++c) gradient[r][c] = gradients.added;
    }
    acc_t reference[WINDOWS];
    find_references(reference, patch, of);
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w) {
      const bool exists = window_exists(strip, w);
      const acc_t grad = window_number(arrived, w);
      const Window window = own_window(patch, strip.columns, w, reference[w], of);
      const bool mine = FIRST + w >= 0 && FIRST + w < COLUMNS;
      if (WRITE_GRAD_LAM && mine && o >= strip.part.row_begin && exists) {
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
      give_rows(gradients, strip, o, gradient);
    }
    move_down(patch);
    return true;
  });
  store_last_rows(gradients, strip, max(begin, strip.part.row_end), gradient);
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
  if (!WRITE_GRAD_LAM && part.plane >= planes) return;
  acc_t lam_part = 0;
  if (!WRITE_GRAD_LAM || (part.plane < planes && part.row_begin < part.input_end)) {
    Strip strip = strip_of(plane, part, input);
    const acc_t lambda = load(lam + LAM_OFFSET(part.plane));
    const acc_t added = ADD_MEAN_GRAD ? load(mean_grad + part.plane) : 0;
    index_t begin = max(part.row_begin - HALO_H, (index_t)0);
    bool done = false;
    if (SHARED) {
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
      const int n = divided(part.plane, channels_magic, channels_shift);
      const int chunks = (int)plane_threads / (int)lanes;
      const int chunk = (number - part.plane * (int)plane_threads) / (int)lanes;
      store(grad_lam + (n * chunks + chunk) * (index_t)channels + part.plane -
                n * (int)channels,
            lam_part);
    }
  }
}

#endif
