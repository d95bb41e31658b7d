// Windows that tile the planes of contiguous tensors. Blocks share them out as planes.cu tells; a
// thread takes a group of VECTOR neighbouring windows of a row at a time.
//
// Where lam is one a plane, threads compute for groups beyond their block's last, too, and only do
// not store: without branches between them, a thread's groups are worked on side by side.
//
// Macros, beside those of planes.cu: PACK, elements a load or store of input-sized tensors.

#define PACKS (VECTOR * KERNEL_W / PACK)
#define ONE_LAM (!LAM_PER_WINDOW)

// Left alone, the compiler spills a register where indices are wide.
#if TAPS == 4 && KERNEL_H == 2 && WRITE_GRAD_LAM && ONE_LAM && defined(DTYPE_FLOAT32)
#undef BOUNDS
#define BOUNDS(threads) __launch_bounds__(threads, sizeof(index_t) == 4 ? 0 : 1)
#endif

// A group's elements, as they lie in memory. They are widened where they are used: a load is
// waited for no earlier, and takes as few registers as it can.
struct Group {
  Pack<PACK> rows[KERNEL_H][PACKS];
};

__device__ __forceinline__ Group load_group(const scalar_t* first, index_t width) {
  Group group;
#pragma unroll
  for (int i = 0; i < KERNEL_H; ++i) {
#pragma unroll
    for (int k = 0; k < PACKS; ++k) {
      group.rows[i][k] = load_pack<PACK>(first + i * width + k * PACK);
    }
  }
  return group;
}

__device__ __forceinline__ void store_group(scalar_t* first, index_t width, const Group& group) {
#pragma unroll
  for (int i = 0; i < KERNEL_H; ++i) {
#pragma unroll
    for (int k = 0; k < PACKS; ++k) {
      store_pack(first + i * width + k * PACK, group.rows[i][k]);
    }
  }
}

__device__ __forceinline__ void take_window(
    const Group& group, int v, unsigned flip, acc_t (&x)[TAPS]) {
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const int column = v * KERNEL_W + tap % KERNEL_W;
    x[tap] = widen_flipped(group.rows[tap / KERNEL_W][column / PACK], column % PACK, flip);
  }
}

__device__ __forceinline__ void put_window(Group& group, int v, const acc_t (&x)[TAPS]) {
  constexpr int STEP = KERNEL_W % 2 == 0 && PACK > 1 ? 2 : 1;
#pragma unroll
  for (int tap = 0; tap < TAPS; tap += STEP) {
    const int column = v * KERNEL_W + tap % KERNEL_W;
    Pack<PACK>& pack = group.rows[tap / KERNEL_W][column / PACK];
    if constexpr (STEP == 2) {
      narrow_pair(x[tap], x[tap + 1], pack, column % PACK);
    } else {
      pack.element[column % PACK] = narrow(x[tap]);
    }
  }
}

// Where lam of a plane lies.
__device__ __forceinline__ const acc_t* lam_of(
    const acc_t* lam, index_t plane, index_t channels, long long by_channels, long long lam_n,
    long long lam_c) {
  const index_t n = divide(plane, channels, by_channels);
  return lam + n * lam_n + (plane - n * channels) * lam_c;
}

// Where lam of a group's first window lies, where it varies inside a plane.
__device__ __forceinline__ const acc_t* lam_of_group(
    const acc_t* lam, index_t row, index_t column, index_t channels, long long by_channels,
    index_t rows_h, long long by_rows_h, long long lam_n, long long lam_c, long long lam_h,
    long long lam_w) {
  const index_t plane = divide(row, rows_h, by_rows_h);
  const acc_t* first = lam_of(lam, plane, channels, by_channels, lam_n, lam_c);
  return first + (row - plane * rows_h) * lam_h + column * VECTOR * lam_w;
}

#define LAM_OF_GROUP(row)                                                                         \
  lam_of_group(                                                                                   \
      lam, row, column, channels, by_channels, rows_h, by_rows_h, lam_n, lam_c, lam_h, lam_w)

// Shared memory: of each plane of the block, `table` at most, lam and what is added to each
// element's gradient; and a number for each group or warp.
extern __shared__ __align__(16) unsigned char smem[];

// Fills the shared memory's tables, lams with what is kept of lam. Threads must meet before they
// read them. To be called when the first groups have been asked for: what is waited for here then
// arrives with them.
__device__ __forceinline__ void load_planes(
    const Deal& deal, int threads, const acc_t* lam, index_t channels, long long by_channels,
    long long lam_n, long long lam_c, const acc_t* mean_grad, acc_t* lams, acc_t* all_added) {
#pragma unroll 1
  for (index_t at = threadIdx.x; at < deal.count; at += threads) {
    const index_t plane = deal.plane + at;
    const acc_t added = ADD_MEAN_GRAD ? load(mean_grad + plane) : 0;
    if (ONE_LAM) {
      lams[at] = kept_of(load(lam_of(lam, plane, channels, by_channels, lam_n, lam_c)));
    }
    if (ADD_MEAN_GRAD) all_added[at] = added;
  }
}

// What a thread takes: of each `turn` rows, from `row` on, the group in column `column`.
struct Own {
  index_t row, column;
};

// A thread too many owns no row of the block's.
__device__ __forceinline__ Own own_groups(
    const Deal& deal, index_t turn, index_t groups_w, long long by_groups_w) {
  const index_t row = divide(threadIdx.x, groups_w, by_groups_w);
  return {row < turn ? deal.begin + row : deal.end, threadIdx.x - row * groups_w};
}

// For a row too many, the block's last.
#define EXISTING(row) min(row, deal.end - 1)

// Which of the block's planes a row is of.
#define PLANE_OF(row) (divide(row, rows_h, by_rows_h) - deal.plane)

// Where the group in the thread's column of a row begins, in tensors of either size.
#define INPUT_AT(tensor, row)                                                                     \
  ((tensor) + ((row) * (KERNEL_H * width) + column * (VECTOR * KERNEL_W)))
#define OUTPUT_AT(tensor, row) ((tensor) + ((row) * out_w + column * VECTOR))

#if !WRITE_GRAD_INPUT && !WRITE_GRAD_LAM

// Reads X and lam, writes O (2 O with WRITE_SPREAD).
extern "C" __global__ void BOUNDS(MOST_THREADS) KERNEL(disjoint_forward)(
    FORWARD_TENSORS, SIZES) {
  const index_t groups = groups_w, out_w = groups * VECTOR, width = out_w * KERNEL_W;
  const index_t apart = turn;
  const Deal deal = block_deal(rows, rows_h, by_rows_h, most, chunks, by_chunks);
  acc_t* lams = reinterpret_cast<acc_t*>(smem);
  const Own own = own_groups(deal, apart, groups, by_groups_w);
  acc_t kept = 0;
#pragma unroll 1
  for (index_t pass = 0; pass < (index_t)passes; ++pass) {
    const index_t right = own.column + pass * (index_t)threads, column = min(right, groups - 1);
    const index_t end = right < groups ? deal.end : deal.begin;
    index_t row = own.row;
#pragma unroll 1
    for (index_t round = deal.begin; round < deal.end; round += apart * ITEMS) {
      Group of[ITEMS];
#pragma unroll
      for (int item = 0; item < ITEMS; ++item) {
        of[item] = load_group(INPUT_AT(input, EXISTING(row + item * apart)), width);
      }
      if (ONE_LAM && pass == 0 && round == deal.begin) {
        __syncthreads();
        load_planes(
            deal, threads, lam, channels, by_channels, lam_n, lam_c, nullptr, lams, nullptr);
        __syncthreads();
      }
#pragma unroll
      for (int item = 0; item < ITEMS; ++item) {
        const index_t own_row = row + item * apart;
        const bool has_group = own_row < end;
        if (ONE_LAM || has_group) {
          if (ONE_LAM) kept = lams[PLANE_OF(EXISTING(own_row))];
          acc_t outputs[VECTOR];
          Pack<VECTOR> spreads;
#pragma unroll
          for (int v = 0; v < VECTOR; ++v) {
            acc_t x[TAPS];
            if (LAM_PER_WINDOW) kept = kept_of(load(LAM_OF_GROUP(own_row) + v * lam_w));
            take_window(of[item], v, flip_of(kept), x);
            const State state = state_of(x, kept);
            outputs[v] = output_of(x, state, kept);
            if (WRITE_SPREAD) spreads.element[v] = spread_of(sensitivity_of(state));
          }
          if (has_group) {
            store_pack(OUTPUT_AT(output, own_row), narrow_pack(outputs));
            if (WRITE_SPREAD) store_pack(OUTPUT_AT(spread, own_row), spreads);
          }
        }
      }
      row += apart * ITEMS;
    }
  }
}

#else

// Reads X, O and lam, writes X. WRITE_GRAD_LAM: the part of lam's gradient that one block finds, in
// grad_lam[n, chunk, channel], or where lam varies inside a plane that of each window.
// ADD_MEAN_GRAD: adds mean_grad[n, channel] to each element.
extern "C" __global__ void BOUNDS(MOST_THREADS) KERNEL(disjoint_backward)(
    BACKWARD_TENSORS, SIZES) {
  const index_t groups = groups_w, out_w = groups * VECTOR, width = out_w * KERNEL_W;
  const index_t apart = turn;
  const Deal deal = block_deal(rows, rows_h, by_rows_h, most, chunks, by_chunks);
  acc_t* lams = reinterpret_cast<acc_t*>(smem);
  acc_t* all_added = lams + table;
  acc_t* partial = all_added + table;
  const Own own = own_groups(deal, apart, groups, by_groups_w);
  acc_t kept = 0, added = 0, part = 0;
#pragma unroll 1
  for (index_t pass = 0; pass < (index_t)passes; ++pass) {
    const index_t right = own.column + pass * (index_t)threads, column = min(right, groups - 1);
    const index_t end = right < groups ? deal.end : deal.begin;
    index_t row = own.row;
#pragma unroll 1
    for (index_t round = deal.begin; round < deal.end; round += apart * ITEMS) {
      Group of[ITEMS];
      Pack<VECTOR> grads[ITEMS];
#pragma unroll
      for (int item = 0; item < ITEMS; ++item) {
        const index_t from = EXISTING(row + item * apart);
        of[item] = load_group(INPUT_AT(input, from), width);
        grads[item] = load_pack<VECTOR>(OUTPUT_AT(grad_output, from));
      }
      if ((ONE_LAM || ADD_MEAN_GRAD) && pass == 0 && round == deal.begin) {
        __syncthreads();
        load_planes(
            deal, threads, lam, channels, by_channels, lam_n, lam_c, mean_grad, lams, all_added);
        __syncthreads();
      }
#pragma unroll
      for (int item = 0; item < ITEMS; ++item) {
        const index_t own_row = row + item * apart;
        const bool has_group = own_row < end;
        if (ONE_LAM || has_group) {
          if (ONE_LAM || ADD_MEAN_GRAD) {
            const index_t plane = PLANE_OF(EXISTING(own_row));
            if (ONE_LAM) kept = lams[plane];
            if (ADD_MEAN_GRAD) added = all_added[plane];
          }
          if (!CHUNKED) part = 0;
#pragma unroll
          for (int v = 0; v < VECTOR; ++v) {
            acc_t x[TAPS];
            if (LAM_PER_WINDOW) kept = kept_of(load(LAM_OF_GROUP(own_row) + v * lam_w));
            take_window(of[item], v, flip_of(kept), x);
            const acc_t found = send_back(widen_from(grads[item], v), kept, added, x);
            if (WRITE_GRAD_INPUT) put_window(of[item], v, x);
            if (WRITE_GRAD_LAM && LAM_PER_WINDOW) {
              store(grad_lam + (own_row * out_w + column * VECTOR + v), found);
            }
            if (WRITE_GRAD_LAM && ONE_LAM && (!CHUNKED || has_group)) part += found;
          }
          if (WRITE_GRAD_LAM && ONE_LAM && !CHUNKED && has_group) {
            partial[(own_row - deal.begin) * groups + column] = part;
          }
          if (WRITE_GRAD_INPUT && has_group) {
            store_group(INPUT_AT(grad_input, own_row), width, of[item]);
          }
        }
      }
      row += apart * ITEMS;
    }
  }
  if (WRITE_GRAD_LAM && ONE_LAM && !CHUNKED) {
    __syncthreads();
    store_plane_sums(
        partial, (index_t)rows_h * groups, deal.count, threads, grad_lam + deal.plane);
  } else if (WRITE_GRAD_LAM && ONE_LAM) {
    const acc_t sum = block_sum(part, threads, partial);
    if (threadIdx.x == 0) {
      const index_t n = divide(deal.plane, channels, by_channels);
      const index_t channel = deal.plane - n * (index_t)channels;
      store(grad_lam + (n * (index_t)chunks + deal.chunk) * (index_t)channels + channel, sum);
    }
  }
}

#endif
