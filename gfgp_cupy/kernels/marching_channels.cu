// Max-Ent pooling in channels_last of windows that overlap, or that padding or the plane's edge
// cuts, by the march of marching_tile.cu.
//
// float32: each window is worked on by itself, relative to its own extreme element
// (weighted_window.cu). Half types: windows share their elements' weights, relative to one
// reference for the tile (shared_weights.cu). From the row on where that does not hold, because
// windows lie too far from the reference, the tile is worked on window by window; so is all of it
// where lam is large.

#define SHARED (sizeof(scalar_t) == 2)

__device__ __forceinline__ bool share_weights(const acc_t (&lam)[VECTOR]) {
  bool share = SHARED;
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) share &= fabs(lam[v]) <= MOST_SHARED_LAM;
  return share;
}

// Blocks that a multiprocessor is to hold. Left alone, the compiler spills registers to make room
// for more, or takes so many that too few have room. For other architectures than sm_90 it needs a
// few registers more.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ != 900
#define TIGHT 0
#else
#define TIGHT 1
#endif
constexpr int wanted_blocks() {
  constexpr bool whole = LAST_COLUMNS >= OWN && LAST_WINDOWS >= TILE && !OVERLAP;
  constexpr bool few_taps = TAPS <= 9;
  constexpr bool wide = few_taps && STRIDE_W > 2;  // many columns a window
  if (sizeof(index_t) > sizeof(int)) return 1;
  if (WRITE_GRAD_INPUT || WRITE_GRAD_LAM) {
    if (!few_taps) return 1;
    if (!WRITE_GRAD_LAM || !SHARED) return (!whole ? 2 + !WRITE_GRAD_LAM : 3 + TIGHT) - wide;
    return (whole ? 3 : 2) - wide;
  }
  if (WRITE_SPREAD) return (!few_taps ? 3 : whole && STRIDE_W > 1 ? 5 : 4) - wide;
  return (!few_taps ? 3 + SHARED : SHARED ? 7 : 5) - !whole - wide;
}
#define BLOCK_BOUNDS __launch_bounds__(BLOCK, wanted_blocks())

// ---------------------------------------------------------------- window by window

// The elements of window `w` of the patch, counted from the first that reaches into it.
__device__ __forceinline__ void take_window(
    acc_t (&x)[TAPS], const Patch& patch, int w, int v) {
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    x[tap] = widen_from(patch.x[tap / KERNEL_W][w * STRIDE_W + tap % KERNEL_W], v);
  }
}

// The windows' references. lam may have either sign side by side, in the channels of a warp.
// Branches hold a loop each, since the compiler would find both the least and the largest.
__device__ __forceinline__ void find_references(
    acc_t (&reference)[WINDOWS], const Patch& patch, int v, acc_t lam) {
  if (lam < 0) {
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w) {
      acc_t x[TAPS];
      take_window(x, patch, w, v);
      reference[w] = extreme_of(x, true);
    }
  } else {
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w) {
      acc_t x[TAPS];
      take_window(x, patch, w, v);
      reference[w] = extreme_of(x, false);
    }
  }
}

__device__ __forceinline__ Window own_window(
    acc_t reference, const Patch& patch, const Columns& columns, int w, int v,
    const Parameter& of) {
  acc_t x[TAPS], absent[TAPS];
  take_window(x, patch, w, v);
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const int c = w * STRIDE_W + tap % KERNEL_W;
    const acc_t row = patch.absent[tap / KERNEL_W];
    absent[tap] = may_be_absent(c) ? row + columns.absent[c] : row;
  }
  return window_about(reference, x, absent, of);
}

// ---------------------------------------------------------------- with shared weights

// What is known of the patch's elements, of one channel.
struct Weighed {
  acc_t deviation[KERNEL_H][WIDTH], weight[KERNEL_H][WIDTH];    // d, e
  acc_t total[KERNEL_H][WINDOWS], weighted[KERNEL_H][WINDOWS];  // sums over a window's columns
};

// The extreme of the own columns of the row that arrives first.
__device__ __forceinline__ acc_t first_extreme(const Patch& patch, int v, acc_t lam) {
  acc_t least = widen_from(patch.next_x[0][LEFT], v), most = least;
#pragma unroll
  for (int c = LEFT + 1; c < min(LEFT + OWN, WIDTH); ++c) {
    least = min(least, widen_from(patch.next_x[0][c], v));
    most = max(most, widen_from(patch.next_x[0][c], v));
  }
  return lam < 0 ? least : most;
}

__device__ __forceinline__ void weigh_row(
    Weighed& weighed, int r, const Patch& patch, int v, const Columns& columns,
    const SharedFormula& formula) {
  const acc_t exponent = patch.absent[r] + formula.exponent;
#pragma unroll
  for (int c = 0; c < WIDTH; ++c) {
    weighed.deviation[r][c] = widen_from(patch.x[r][c], v) - formula.origin;
    weighed.weight[r][c] = power_of_two(
        fma(formula.scale, weighed.deviation[r][c],
            may_be_absent(c) ? exponent + columns.absent[c] : exponent));
  }
#pragma unroll
  for (int w = 0; w < WINDOWS; ++w) {
    acc_t total = 0, weighted = 0;
#pragma unroll
    for (int k = 0; k < KERNEL_W; ++k) {
      const int c = w * STRIDE_W + k;
      total = k ? total + weighed.weight[r][c] : weighed.weight[r][c];
      weighted = fma(weighed.weight[r][c], weighed.deviation[r][c], weighted);
    }
    weighed.total[r][w] = total;
    weighed.weighted[r][w] = weighted;
  }
}

__device__ __forceinline__ void move_down(Weighed (&weighed)[VECTOR]) {
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) {
#pragma unroll
    for (int r = 0; r < KEPT; ++r) {
#pragma unroll
      for (int c = 0; c < WIDTH; ++c) {
        weighed[v].deviation[r][c] = weighed[v].deviation[STRIDE_H + r][c];
        weighed[v].weight[r][c] = weighed[v].weight[STRIDE_H + r][c];
      }
#pragma unroll
      for (int w = 0; w < WINDOWS; ++w) {
        weighed[v].total[r][w] = weighed[v].total[STRIDE_H + r][w];
        weighed[v].weighted[r][w] = weighed[v].weighted[STRIDE_H + r][w];
      }
    }
  }
}

// Sums over the rows of window `w`.
__device__ __forceinline__ acc_t over_rows(const acc_t (&sums)[KERNEL_H][WINDOWS], int w) {
  acc_t sum = sums[0][w];
#pragma unroll
  for (int r = 1; r < KERNEL_H; ++r) sum += sums[r][w];
  return sum;
}

// The sum of weight (d - shift)^2.
__device__ __forceinline__ acc_t squares_of(const Weighed& weighed, int w, acc_t shift) {
  acc_t sum = 0;
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const int r = tap / KERNEL_W, c = w * STRIDE_W + tap % KERNEL_W;
    const acc_t deviation = weighed.deviation[r][c] - shift;
    sum = fma(weighed.weight[r][c] * deviation, deviation, sum);
  }
  return sum;
}

// ---------------------------------------------------------------- the passes

#if !WRITE_GRAD_INPUT && !WRITE_GRAD_LAM

// Ends at a row where the shared weights do not hold.
__device__ __forceinline__ index_t forward_shared(
    const scalar_t* input, const Tile& tile, const Plane& plane, const Columns& columns,
    const acc_t (&lam)[VECTOR], scalar_t* output, scalar_t* spread) {
  Patch patch = start_patch(input, tile, plane, columns, tile.row_begin);
  SharedFormula formula[VECTOR];
  Weighed weighed[VECTOR];
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) {
    formula[v] = shared_formula(lam[v], first_extreme(patch, v, lam[v]));
#pragma unroll
    for (int r = 0; r < KEPT; ++r) weigh_row(weighed[v], r, patch, v, columns, formula[v]);
  }
  return for_each_row<2>(tile.row_begin, tile.row_end, [&](index_t o) {
    arrive(patch, plane, columns);
    bool all_hold = true;
    acc_t y[TILE][VECTOR], variance[TILE][VECTOR];
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
#pragma unroll
      for (int r = KEPT; r < KERNEL_H; ++r) {
        weigh_row(weighed[v], r, patch, v, columns, formula[v]);
      }
#pragma unroll
      for (int w = 0; w < TILE; ++w) {
        const acc_t total = over_rows(weighed[v].total, w);
        const acc_t sum = over_rows(weighed[v].weighted, w);
        all_hold &= total_holds(total, exists(tile, plane, w)) &
                    (IS_FLOAT16 || sum_holds(sum));
        const acc_t inverse_total = reciprocal(total);
        y[w][v] = sum * inverse_total;
        variance[w][v] =
            WRITE_SPREAD ? squares_of(weighed[v], w, y[w][v]) * inverse_total : 0;
      }
    }
    if (all_hold) store_results(output, spread, tile, plane, o, y, variance);
    move_down(weighed);
    return all_hold;
  });
}

__device__ __forceinline__ void forward_alone(
    const scalar_t* input, const Tile& tile, const Plane& plane, const Columns& columns,
    const acc_t (&lam)[VECTOR], index_t begin, scalar_t* output, scalar_t* spread) {
  Parameter of[VECTOR];
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) of[v] = parameter(lam[v]);
  Patch patch = start_patch(input, tile, plane, columns, begin);
  for_each_row<SHARED ? 1 : 2>(begin, tile.row_end, [&](index_t o) {
    arrive(patch, plane, columns);
    acc_t y[TILE][VECTOR], deviation[TILE][VECTOR];
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
      acc_t reference[WINDOWS];
      find_references(reference, patch, v, lam[v]);
#pragma unroll
      for (int w = 0; w < TILE; ++w) {
        const Window window = own_window(reference[w], patch, columns, w, v, of[v]);
        y[w][v] = mean(window);
        deviation[w][v] = WRITE_SPREAD ? variance(window) : 0;
      }
    }
    store_results(output, spread, tile, plane, o, y, deviation);
    move_down(patch);
    return true;
  });
}

// Reads the tile's part of the input, once but for what it shares with neighbours, and lam; writes
// one output element, and where WRITE_SPREAD the standard deviation, of each own window. Traffic:
// X + O; with the spread X + 2 O.
extern "C" __global__ void BLOCK_BOUNDS max_ent_pool2d_marching_channels_forward(
    const scalar_t* __restrict__ input, const acc_t* __restrict__ lam,
    scalar_t* __restrict__ output, scalar_t* __restrict__ spread, PARAMETERS) {
  const index_t thread = (index_t)blockIdx.x * BLOCK + threadIdx.x;
  if (thread >= threads) return;
  const Plane plane = PLANE;
  const Tile tile = TILE_OF(thread);
  acc_t lambda[VECTOR];
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) {
    lambda[v] = load(lam + tile.n * lam_n + (tile.channel + v) * lam_c);
  }
  const Columns columns = columns_of(tile, plane);
  const index_t begin =
      share_weights(lambda)
          ? forward_shared(input, tile, plane, columns, lambda, output, spread)
          : tile.row_begin;
  if (begin < tile.row_end) {
    forward_alone(input, tile, plane, columns, lambda, begin, output, spread);
  }
}

#else

// Ends at a row where the shared weights do not hold.
__device__ __forceinline__ index_t backward_shared(
    const scalar_t* input, Gradients gradients, const Tile& tile, const Plane& plane,
    const Columns& columns, const acc_t (&lam)[VECTOR], index_t begin,
    acc_t (&lam_part)[VECTOR]) {
  Patch patch = start_patch(input, tile, plane, columns, begin);
  SharedFormula formula[VECTOR];
  Weighed weighed[VECTOR];
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) {
    formula[v] = shared_formula(lam[v], first_extreme(patch, v, lam[v]));
#pragma unroll
    for (int r = 0; r < KEPT; ++r) weigh_row(weighed[v], r, patch, v, columns, formula[v]);
  }
  Received received;
  add_to_rows(received, gradients, 0, KEPT);
  const index_t end = for_each_row<2>(begin, tile.row_end, [&](index_t o) {
    arrive(patch, plane, columns);
    bool all_hold = true;
    Raw grads[WINDOWS];
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w) grads[w] = gradients.windows[w];
    load_gradients(gradients, tile, plane, o + 1);
    add_to_rows(received, gradients, KEPT, KERNEL_H);
    acc_t row_part[VECTOR];
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
#pragma unroll
      for (int r = KEPT; r < KERNEL_H; ++r) {
        weigh_row(weighed[v], r, patch, v, columns, formula[v]);
      }
      acc_t slope[OWN], level[OWN];  // of the row's windows that hold an own column
      row_part[v] = 0;
#pragma unroll
      for (int w = 0; w < WINDOWS; ++w) {
        const acc_t total = over_rows(weighed[v].total, w);
        const acc_t sum = over_rows(weighed[v].weighted, w);
        const bool there = exists(tile, plane, FIRST + w);
        all_hold &= total_holds(total, there);
        const acc_t inverse_total = reciprocal(total);
        const acc_t shift = fma(sum, inverse_total, (acc_t)0);
        const acc_t part = widen_from(grads[w], v) * inverse_total;
        if (WRITE_GRAD_LAM && FIRST + w >= 0 && FIRST + w < TILE) {
          const acc_t squares = squares_of(weighed[v], w, shift);
          const bool mine = there && stores(tile, FIRST + w);
          row_part[v] = mine ? fma(part, squares, row_part[v]) : row_part[v];
        }
        const Shares own = shares(formula[v], part, shift);
        all_hold &= sum_holds(there ? own.level : sum);
        const acc_t a = there ? own.slope : 0, b = there ? own.level : 0;
#pragma unroll
        for (int k = 0; k < KERNEL_W; ++k) {
          const int c = w * STRIDE_W + k - LEFT;
          if (c < 0 || c >= OWN) continue;
          // Window w is the first that holds the column, or the one before has set the sums.
          const bool first = w == 0 || k + STRIDE_W >= KERNEL_W;
          slope[c] = first ? a : slope[c] + a;
          level[c] = first ? b : level[c] + b;
        }
      }
#pragma unroll
      for (int r = 0; WRITE_GRAD_INPUT && r < KERNEL_H; ++r) {
#pragma unroll
        for (int c = 0; c < OWN; ++c) {
          const acc_t weight = weighed[v].weight[r][LEFT + c];
          const acc_t product = weight * weighed[v].deviation[r][LEFT + c];
          received[r][c][v] =
              fma(slope[c], product, fma(level[c], weight, received[r][c][v]));
        }
      }
    }
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
      if (WRITE_GRAD_LAM && all_hold && o >= tile.row_begin) lam_part[v] += row_part[v];
    }
    if (WRITE_GRAD_INPUT) give_rows(gradients, tile, plane, o, all_hold, received);
    move_down(weighed);
    return all_hold;
  });
  if (end >= tile.row_end) store_last_rows(gradients, tile, plane, end, received);
  return end;
}

__device__ __forceinline__ void backward_alone(
    const scalar_t* input, Gradients gradients, const Tile& tile, const Plane& plane,
    const Columns& columns, const acc_t (&lam)[VECTOR], index_t begin,
    acc_t (&lam_part)[VECTOR]) {
  Parameter of[VECTOR];
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) of[v] = parameter(lam[v]);
  Patch patch = start_patch(input, tile, plane, columns, begin);
  Received gradient;
  add_to_rows(gradient, gradients, 0, KEPT);
  for_each_row<SHARED ? 1 : 2>(begin, tile.row_end, [&](index_t o) {
    arrive(patch, plane, columns);
    Raw grads[WINDOWS];
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w) grads[w] = gradients.windows[w];
    load_gradients(gradients, tile, plane, o + 1);
    add_to_rows(gradient, gradients, KEPT, KERNEL_H);
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
      acc_t reference[WINDOWS];
      find_references(reference, patch, v, lam[v]);
#pragma unroll
      for (int w = 0; w < WINDOWS; ++w) {
        const bool there = exists(tile, plane, FIRST + w);
        const acc_t grad = widen_from(grads[w], v);
        const Window window = own_window(reference[w], patch, columns, w, v, of[v]);
        const bool own = FIRST + w >= 0 && FIRST + w < TILE;
        const bool mine = there && stores(tile, FIRST + w);
        if (WRITE_GRAD_LAM && own && mine && o >= tile.row_begin) {
          lam_part[v] = fma(grad, variance(window), lam_part[v]);
        }
        if (!WRITE_GRAD_INPUT) continue;
        const Sent back = sent(window, of[v], grad);
#pragma unroll
        for (int tap = 0; tap < TAPS; ++tap) {
          const int r = tap / KERNEL_W, c = w * STRIDE_W + tap % KERNEL_W - LEFT;
          if (c < 0 || c >= OWN) continue;
          const acc_t sum = received(window, back, tap, gradient[r][c][v]);
          gradient[r][c][v] = there ? sum : gradient[r][c][v];
        }
      }
    }
    if (WRITE_GRAD_INPUT) give_rows(gradients, tile, plane, o, true, gradient);
    move_down(patch);
    return true;
  });
  store_last_rows(gradients, tile, plane, max(begin, tile.row_end), gradient);
}

// Reads the tile's part of the input and of grad_output, with the neighbours' windows that reach
// into it, and lam; writes each own element's gradient, and where WRITE_GRAD_LAM the tile's part of
// lam's gradient, in grad_lam[n, tile, channel]. ADD_MEAN_GRAD: adds mean_grad[n, channel] to each
// element. Traffic: 2 X + O.
extern "C" __global__ void BLOCK_BOUNDS max_ent_pool2d_marching_channels_backward(
    const scalar_t* __restrict__ grad_output, const scalar_t* __restrict__ input,
    const acc_t* __restrict__ lam, const acc_t* __restrict__ mean_grad,
    scalar_t* __restrict__ grad_input, acc_t* __restrict__ grad_lam, PARAMETERS) {
  const Plane plane = PLANE;
  acc_t lam_part[VECTOR];
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) lam_part[v] = 0;
  index_t begin = 0;
#pragma unroll
  for (int path = SHARED ? 0 : 1; path < 2; ++path) {
    // Anew, so that it does not wait in registers while the other path runs.
    const index_t thread = thread_number();
    if (thread >= threads) return;
    Tile tile = TILE_OF(thread);
    // What the shared weights left over is a strip of its own.
    tile.row_begin = max(tile.row_begin, begin);
    begin = max(tile.row_begin - HALO_H, (index_t)0);
    acc_t lambda[VECTOR], added[VECTOR];
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
      lambda[v] = load(lam + tile.n * lam_n + (tile.channel + v) * lam_c);
      added[v] = ADD_MEAN_GRAD ? load(mean_grad + tile.n * CHANNELS + tile.channel + v) : 0;
    }
    if (path == 0 && !share_weights(lambda)) continue;
    const Columns columns = columns_of(tile, plane);
    const Gradients gradients =
        start_gradients(grad_output, grad_input, added, tile, plane, begin);
    if (path == 0) {
      begin = backward_shared(
          input, gradients, tile, plane, columns, lambda, begin, lam_part);
      if (begin >= tile.row_end) break;
    } else {
      backward_alone(input, gradients, tile, plane, columns, lambda, begin, lam_part);
    }
  }
  const index_t thread = thread_number();
  const Tile tile = TILE_OF(thread);
#pragma unroll
  for (int v = 0; WRITE_GRAD_LAM && v < VECTOR; ++v) {
    const index_t chunk = tile.n * (index_t)(strips * tiles) + tile.number;
    store(grad_lam + chunk * CHANNELS + tile.channel + v, lam_part[v]);
  }
}

#endif
