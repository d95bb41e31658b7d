// Pooling in channels_last of windows that overlap, or that padding or the plane's edge
// cuts, by the march of marching_tile.cu.
//
// Each window is worked on by itself (weighted_window.cu). Half types, where the formula has such
// functions (SHARES): windows share what is made of their elements, relative to what a tile has in
// common (shared_weights.cu). From the row on where that does not hold, the tile is worked on
// window by window; so is all of it where the formula does not try.

#define SHARED (SHARES && sizeof(scalar_t) == 2)

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
  if (!SHARES) return WRITE_GRAD_INPUT || WRITE_GRAD_LAM ? 2 : few_taps ? 4 : 3;
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

__device__ __forceinline__ State own_state(
    acc_t reference, const Patch& patch, const Columns& columns, int w, int v,
    const Parameter& of) {
  acc_t x[TAPS], absent[TAPS];
  take_window(x, patch, w, v);
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

__device__ __forceinline__ bool are_shared(const acc_t (&lam)[VECTOR]) {
  bool share = SHARED;
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) share &= may_share(lam[v]);
  return share;
}

// The patch's elements of one channel.
struct Channel {
  acc_t x[KERNEL_H][WIDTH];
};

// There is no room for products.
typedef SharedRows<Channel, false> Rows;

__device__ __forceinline__ void prepare_row(
    Rows& rows, int r, const Patch& patch, int v, const Columns& columns,
    const SharedFormula& formula) {
  prepare_row(
      rows, r, [&](int c) { return widen_from(patch.x[r][c], v); }, patch.absent[r], columns,
      formula);
}

// The formula follows from the own columns of the row that arrives first.
__device__ __forceinline__ SharedFormula start_rows(
    Rows& rows, const Patch& patch, int v, const Columns& columns, acc_t lam) {
  const SharedFormula formula = shared_formula(
      lam, LEFT, min(LEFT + OWN, WIDTH),
      [&](int c) { return widen_from(patch.next[0][c], v); });
#pragma unroll
  for (int r = 0; r < KEPT; ++r) prepare_row(rows, r, patch, v, columns, formula);
  return formula;
}

// Of each channel, the rows that the next row of windows wants, too, move up.
__device__ __forceinline__ void move_channels_down(Rows (&rows)[VECTOR]) {
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) {
#pragma unroll
    for (int r = 0; r < KEPT; ++r) {
#pragma unroll
      for (int c = 0; c < WIDTH; ++c) rows[v].x[r][c] = rows[v].x[STRIDE_H + r][c];
    }
    move_rows_down(rows[v]);
  }
}

#endif

// ---------------------------------------------------------------- the passes

#if !WRITE_GRAD_INPUT && !WRITE_GRAD_LAM

#if SHARES

// Ends at a row where what windows share does not hold.
__device__ __forceinline__ index_t forward_shared(
    const scalar_t* input, const Tile& tile, const Plane& plane, const Columns& columns,
    const acc_t (&lam)[VECTOR], scalar_t* output, scalar_t* spread) {
  Patch patch = start_patch(input, tile, plane, columns, tile.row_begin);
  SharedFormula formula[VECTOR];
  Rows rows[VECTOR];
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) {
    formula[v] = start_rows(rows[v], patch, v, columns, lam[v]);
  }
  return for_each_row<2>(tile.row_begin, tile.row_end, [&](index_t o) {
    arrive(patch, plane, columns);
    bool all_hold = true;
    acc_t y[TILE][VECTOR], sensitivity[TILE][VECTOR];
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
#pragma unroll
      for (int r = KEPT; r < KERNEL_H; ++r) {
        prepare_row(rows[v], r, patch, v, columns, formula[v]);
      }
#pragma unroll
      for (int w = 0; w < TILE; ++w) {
        const SharedOutput of =
            pool_shared(rows[v], w, formula[v], exists(tile, plane, w), all_hold);
        y[w][v] = of.output;
        sensitivity[w][v] = of.sensitivity;
      }
    }
    if (all_hold) store_results(output, spread, tile, plane, o, y, sensitivity);
    move_channels_down(rows);
    return all_hold;
  });
}

#endif

__device__ __forceinline__ void forward_alone(
    const scalar_t* input, const Tile& tile, const Plane& plane, const Columns& columns,
    const acc_t (&lam)[VECTOR], index_t begin, scalar_t* output, scalar_t* spread) {
  Parameter of[VECTOR];
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) of[v] = parameter(lam[v]);
  Patch patch = start_patch(input, tile, plane, columns, begin);
  for_each_row<SHARED ? 1 : 2>(begin, tile.row_end, [&](index_t o) {
    arrive(patch, plane, columns);
    acc_t y[TILE][VECTOR], sensitivity[TILE][VECTOR];
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
      acc_t reference[WINDOWS];
      find_references(
          reference, lam[v], [&](acc_t(&x)[TAPS], int w) { take_window(x, patch, w, v); });
#pragma unroll
      for (int w = 0; w < TILE; ++w) {
        const State state = own_state(reference[w], patch, columns, w, v, of[v]);
        y[w][v] = output_of(state);
        sensitivity[w][v] = WRITE_SPREAD ? sensitivity_of(state) : 0;
      }
    }
    store_results(output, spread, tile, plane, o, y, sensitivity);
    move_down(patch);
    return true;
  });
}

// Reads the tile's part of the input, once but for what it shares with neighbours, and lam; writes
// one output element, and where WRITE_SPREAD the spread, of each own window. Traffic:
// X + O; with the spread X + 2 O.
extern "C" __global__ void BLOCK_BOUNDS KERNEL(marching_channels_forward)(
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
  index_t begin = tile.row_begin;
#if SHARES
  if (are_shared(lambda)) {
    begin = forward_shared(input, tile, plane, columns, lambda, output, spread);
  }
#endif
  if (begin < tile.row_end) {
    forward_alone(input, tile, plane, columns, lambda, begin, output, spread);
  }
}

#else

#if SHARES

// Ends at a row where what windows share does not hold.
__device__ __forceinline__ index_t backward_shared(
    const scalar_t* input, Gradients gradients, const Tile& tile, const Plane& plane,
    const Columns& columns, const acc_t (&lam)[VECTOR], index_t begin,
    acc_t (&lam_part)[VECTOR]) {
  Patch patch = start_patch(input, tile, plane, columns, begin);
  SharedFormula formula[VECTOR];
  Rows rows[VECTOR];
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) {
    formula[v] = start_rows(rows[v], patch, v, columns, lam[v]);
  }
  Received gradient;
  add_to_rows(gradient, gradients, 0, KEPT);
  const index_t end = for_each_row<2>(begin, tile.row_end, [&](index_t o) {
    arrive(patch, plane, columns);
    bool all_hold = true;
    Raw grads[WINDOWS];
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w) grads[w] = gradients.windows[w];
    load_gradients(gradients, tile, plane, o + 1);
    add_to_rows(gradient, gradients, KEPT, KERNEL_H);
    acc_t row_part[VECTOR];
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
#pragma unroll
      for (int r = KEPT; r < KERNEL_H; ++r) {
        prepare_row(rows[v], r, patch, v, columns, formula[v]);
      }
      Shares shares[OWN];  // of the row's windows that hold an own column
      row_part[v] = 0;
#pragma unroll
      for (int w = 0; w < WINDOWS; ++w) {
        const bool own = FIRST + w >= 0 && FIRST + w < TILE;
        const Shares sent = send_shared_back(
            rows[v], w, formula[v], [&, v, w] { return widen_from(grads[w], v); },
            [&, w] { return exists(tile, plane, FIRST + w); }, own,
            [&, w](bool there) { return there && stores(tile, FIRST + w); }, row_part[v], all_hold);
        add_shares(shares, w, sent);
      }
#pragma unroll
      for (int r = 0; WRITE_GRAD_INPUT && r < KERNEL_H; ++r) {
#pragma unroll
        for (int c = 0; c < OWN; ++c) {
          gradient[r][c][v] = received(rows[v], r, LEFT + c, shares[c], gradient[r][c][v]);
        }
      }
    }
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
      if (WRITE_GRAD_LAM && all_hold && o >= tile.row_begin) lam_part[v] += row_part[v];
    }
    if (WRITE_GRAD_INPUT) give_rows(gradients, tile, plane, o, all_hold, gradient);
    move_channels_down(rows);
    return all_hold;
  });
  if (end >= tile.row_end) store_last_rows(gradients, tile, plane, end, gradient);
  return end;
}

#endif

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
  for_each_row<SHARED || (!SHARES && TAPS > 9) ? 1 : 2>(begin, tile.row_end, [&](index_t o) {
    arrive(patch, plane, columns);
    Raw grads[WINDOWS];
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w) grads[w] = gradients.windows[w];
    load_gradients(gradients, tile, plane, o + 1);
    add_to_rows(gradient, gradients, KEPT, KERNEL_H);
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
      acc_t reference[WINDOWS];
      find_references(
          reference, lam[v], [&](acc_t(&x)[TAPS], int w) { take_window(x, patch, w, v); });
#pragma unroll
      for (int w = 0; w < WINDOWS; ++w) {
        const bool there = exists(tile, plane, FIRST + w);
        const acc_t grad = widen_from(grads[w], v);
        const State state = own_state(reference[w], patch, columns, w, v, of[v]);
        const bool own = FIRST + w >= 0 && FIRST + w < TILE;
        const bool mine = there && stores(tile, FIRST + w);
        if (WRITE_GRAD_LAM && own && mine && o >= tile.row_begin) {
          lam_part[v] = fma(grad, sensitivity_of(state), lam_part[v]);
        }
        if (!WRITE_GRAD_INPUT) continue;
        const Sent back = sent(state, of[v], grad);
#pragma unroll
        for (int tap = 0; tap < TAPS; ++tap) {
          const int r = tap / KERNEL_W, c = w * STRIDE_W + tap % KERNEL_W - LEFT;
          if (c < 0 || c >= OWN) continue;
          const acc_t sum = received(state, back, tap, gradient[r][c][v]);
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
extern "C" __global__ void BLOCK_BOUNDS KERNEL(marching_channels_backward)(
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
    // What is left over where the windows do not share is a strip of its own.
    tile.row_begin = max(tile.row_begin, begin);
    begin = max(tile.row_begin - HALO_H, (index_t)0);
    acc_t lambda[VECTOR], added[VECTOR];
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
      lambda[v] = load(lam + tile.n * lam_n + (tile.channel + v) * lam_c);
      added[v] = ADD_MEAN_GRAD ? load(mean_grad + tile.n * CHANNELS + tile.channel + v) : 0;
    }
#if SHARES
    if (path == 0 && !are_shared(lambda)) continue;
#endif
    const Columns columns = columns_of(tile, plane);
    const Gradients gradients =
        start_gradients(grad_output, grad_input, added, tile, plane, begin);
#if SHARES
    if (path == 0) {
      begin = backward_shared(
          input, gradients, tile, plane, columns, lambda, begin, lam_part);
      if (begin >= tile.row_end) break;
      continue;
    }
#endif
    backward_alone(input, gradients, tile, plane, columns, lambda, begin, lam_part);
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
