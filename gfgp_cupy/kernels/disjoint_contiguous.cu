// Windows that tile the planes of contiguous tensors. Blocks share them out as planes.cu tells; a
// thread takes a group of VECTOR neighbouring windows of a row at a time.
//
// Macros, beside those of planes.cu: PACK, elements a load or store of input-sized tensors.

#define PACKS (VECTOR * KERNEL_W / PACK)
#define ONE_LAM (!LAM_PER_WINDOW)

// Whether threads compute for groups beyond their block's last, too, and only do not store: without
// branches between them, a thread's groups are worked on side by side. Blocks of whole planes have
// few such groups.
#define BRANCHLESS (WHOLE_PLANES && ONE_LAM)

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

__device__ __forceinline__ void take_window(const Group& group, int v, acc_t (&x)[TAPS]) {
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const int column = v * KERNEL_W + tap % KERNEL_W;
    x[tap] = widen_from(group.rows[tap / KERNEL_W][column / PACK], column % PACK);
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

// Where a group's first element lies. Rows of groups follow each other from plane to plane, each of
// KERNEL_H rows of elements; `windows` come before the block's first plane.
__device__ __forceinline__ index_t first_element(
    index_t windows, index_t group, index_t groups_w, long long by_groups_w, index_t width) {
  const index_t row = divide(group, groups_w, by_groups_w);
  return windows * TAPS + group * (VECTOR * KERNEL_W) + row * ((KERNEL_H - 1) * width);
}

#define FIRST_ELEMENT(group) first_element(windows, group, groups_w, by_groups_w, width)

// Where lam of a group's first window lies, where it varies inside a plane.
__device__ __forceinline__ const acc_t* lam_of_group(
    const acc_t* lam, index_t first_plane, index_t group, index_t channels, long long by_channels,
    index_t groups, long long by_groups, index_t groups_w, long long by_groups_w,
    long long lam_n, long long lam_c, long long lam_h, long long lam_w) {
  const index_t plane = divide(group, groups, by_groups);
  const index_t inside = group - plane * groups;
  const index_t row = divide(inside, groups_w, by_groups_w);
  const acc_t* first = lam_of(lam, first_plane + plane, channels, by_channels, lam_n, lam_c);
  return first + row * lam_h + (inside - row * groups_w) * VECTOR * lam_w;
}

#define LAM_OF_GROUP(group)                                                                       \
  lam_of_group(                                                                                   \
      lam, deal.plane, group, channels, by_channels, groups, by_groups, groups_w, by_groups_w,    \
      lam_n, lam_c, lam_h, lam_w)

// Shared memory of blocks that own whole planes: lam of each, what is added to each element's
// gradient, and a number for each group.
extern __shared__ __align__(16) unsigned char smem[];

#if !WRITE_GRAD_INPUT && !WRITE_GRAD_LAM

// Reads X and lam, writes O (2 O with WRITE_SPREAD).
extern "C" __global__ void BOUNDS(BLOCK) max_ent_pool2d_disjoint_forward(FORWARD_TENSORS, SIZES) {
  const index_t width = groups_w * (VECTOR * KERNEL_W);
  const Deal deal = block_deal(planes, share, by_share, most, groups);
  acc_t* lams = reinterpret_cast<acc_t*>(smem);
  acc_t scale = 0;
  if (ONE_LAM && WHOLE_PLANES) {
#pragma unroll 1
    for (index_t plane = threadIdx.x; plane < deal.count; plane += BLOCK) {
      lams[plane] =
          LOG2_E * load(lam_of(lam, deal.plane + plane, channels, by_channels, lam_n, lam_c));
    }
  } else if (ONE_LAM) {
    scale = LOG2_E * load_once(lam_of(lam, deal.plane, channels, by_channels, lam_n, lam_c));
  }
  const index_t windows = deal.plane * (index_t)groups * VECTOR;
  for (index_t round = deal.begin; round < deal.end; round += BLOCK * ITEMS) {
    Group of[ITEMS] = {};
#pragma unroll
    for (int item = 0; item < ITEMS; ++item) {
      const index_t group = round + item * BLOCK + threadIdx.x;
      if (group < deal.end) {
        of[item] = load_group(input + FIRST_ELEMENT(group), width);
      }
    }
    if (ONE_LAM && WHOLE_PLANES) __syncthreads();
#pragma unroll
    for (int item = 0; item < ITEMS; ++item) {
      const index_t group = round + item * BLOCK + threadIdx.x;
      const bool has_group = group < deal.end;
      if (BRANCHLESS || has_group) {
        if (ONE_LAM && WHOLE_PLANES) {
          scale = lams[divide(min(group, deal.end - 1), groups, by_groups)];
        }
        acc_t pooled[VECTOR];
        Pack<VECTOR> spreads;
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) {
          acc_t x[TAPS];
          take_window(of[item], v, x);
          if (LAM_PER_WINDOW) scale = LOG2_E * load(LAM_OF_GROUP(group) + v * lam_w);
          const Softmax softmax_of = softmax(x, scale);
          pooled[v] = mean(x, softmax_of);
          if (WRITE_SPREAD) spreads.element[v] = pack_spread(root(variance(softmax_of)));
        }
        const index_t at = windows + group * VECTOR;
        if (has_group) store_pack(output + at, narrow_pack(pooled));
        if (WRITE_SPREAD && has_group) store_pack(spread + at, spreads);
      }
    }
  }
}

#else

// Reads X, O and lam, writes X. WRITE_GRAD_LAM: the part of lam's gradient that one block finds, in
// grad_lam[n, chunk, channel], or where lam varies inside a plane that of each window.
// ADD_MEAN_GRAD: adds mean_grad[n, channel] to each element.
extern "C" __global__ void BOUNDS(BLOCK) max_ent_pool2d_disjoint_backward(
    BACKWARD_TENSORS, SIZES) {
  const index_t width = groups_w * (VECTOR * KERNEL_W);
  const Deal deal = block_deal(planes, share, by_share, most, groups);
  acc_t* lams = reinterpret_cast<acc_t*>(smem);
  acc_t* all_added = lams + share;
  acc_t* partial = WHOLE_PLANES ? all_added + share : lams;
  acc_t lambda = 0, added = 0, part = 0;
  if (WHOLE_PLANES) {
#pragma unroll 1
    for (index_t plane = threadIdx.x; plane < deal.count; plane += BLOCK) {
      if (ONE_LAM) {
        lams[plane] = load(lam_of(lam, deal.plane + plane, channels, by_channels, lam_n, lam_c));
      }
      if (ADD_MEAN_GRAD) all_added[plane] = load(mean_grad + deal.plane + plane);
    }
  } else {
    if (ONE_LAM) lambda = load_once(lam_of(lam, deal.plane, channels, by_channels, lam_n, lam_c));
    if (ADD_MEAN_GRAD) added = load_once(mean_grad + deal.plane);
  }
  const index_t windows = deal.plane * (index_t)groups * VECTOR;
  for (index_t round = deal.begin; round < deal.end; round += BLOCK * ITEMS) {
    Group of[ITEMS] = {};
    Pack<VECTOR> grads[ITEMS] = {};
#pragma unroll
    for (int item = 0; item < ITEMS; ++item) {
      const index_t group = round + item * BLOCK + threadIdx.x;
      if (group < deal.end) {
        of[item] = load_group(input + FIRST_ELEMENT(group), width);
        grads[item] = load_pack<VECTOR>(grad_output + (windows + group * VECTOR));
      }
    }
    if (WHOLE_PLANES && (ONE_LAM || ADD_MEAN_GRAD)) __syncthreads();
#pragma unroll
    for (int item = 0; item < ITEMS; ++item) {
      const index_t group = round + item * BLOCK + threadIdx.x;
      const bool has_group = group < deal.end;
      if (BRANCHLESS || has_group) {
        if (WHOLE_PLANES) {
          const index_t plane = divide(min(group, deal.end - 1), groups, by_groups);
          if (ONE_LAM) lambda = lams[plane];
          if (ADD_MEAN_GRAD) added = all_added[plane];
          part = 0;
        }
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) {
          acc_t x[TAPS];
          take_window(of[item], v, x);
          if (LAM_PER_WINDOW) lambda = load(LAM_OF_GROUP(group) + v * lam_w);
          const acc_t found = send_back(widen_from(grads[item], v), lambda, added, x);
          if (WRITE_GRAD_INPUT) put_window(of[item], v, x);
          if (WRITE_GRAD_LAM && LAM_PER_WINDOW) {
            store(grad_lam + (windows + group * VECTOR + v), found);
          }
          if (WRITE_GRAD_LAM && ONE_LAM) part += found;
        }
        if (WRITE_GRAD_LAM && ONE_LAM && WHOLE_PLANES && has_group) partial[group] = part;
        if (WRITE_GRAD_INPUT && has_group) {
          store_group(grad_input + FIRST_ELEMENT(group), width, of[item]);
        }
      }
    }
  }
  if (WRITE_GRAD_LAM && ONE_LAM && WHOLE_PLANES) {
    __syncthreads();
    store_plane_sums(partial, groups, deal.count, grad_lam + deal.plane);
  } else if (WRITE_GRAD_LAM && ONE_LAM) {
    const acc_t sum = block_sum(part, partial);
    if (threadIdx.x == 0) {
      const index_t n = divide(deal.plane, channels, by_channels);
      const index_t channel = deal.plane - n * (index_t)channels;
      store(grad_lam + (n * (index_t)share + deal.chunk) * (index_t)channels + channel, sum);
    }
  }
}

#endif
