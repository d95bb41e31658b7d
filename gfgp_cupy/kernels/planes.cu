// How blocks share out the planes of contiguous tensors, for windows that tile them.
//
// A group is VECTOR neighbouring windows of a row; a thread takes ITEMS groups at a time, BLOCK
// apart, so that the accesses of a warp adjoin. Groups are counted on over planes: so lie they in
// memory.
//
// Macros: VECTOR, ITEMS; WHOLE_PLANES: whether a block owns `share` planes, of at most
//         BLOCK * ITEMS groups, or one of a plane's `share` chunks.

#define BLOCK 256

// What the host tells; planes.py says of each number what it is.
#define SIZES                                                                                     \
  long long planes, long long channels, long long by_channels, long long share,                   \
      long long by_share, long long most, long long groups, long long by_groups,                  \
      long long groups_w, long long by_groups_w, long long lam_n, long long lam_c,                \
      long long lam_h, long long lam_w

struct Deal {
  index_t plane, count;  // the block's first plane, and how many it owns
  index_t chunk;         // which of the plane's
  index_t begin, end;    // groups, counted from the first of `plane`
};

__device__ __forceinline__ Deal block_deal(
    index_t planes, index_t share, long long by_share, index_t most, index_t groups) {
  Deal deal;
  const index_t block = blockIdx.x;
  if (WHOLE_PLANES) {
    deal.plane = block * share;
    deal.count = min(share, planes - deal.plane);
    deal.chunk = deal.begin = 0;
    deal.end = deal.count * groups;
  } else {
    deal.plane = divide(block, share, by_share);
    deal.count = 1;
    deal.chunk = block - deal.plane * share;
    deal.begin = deal.chunk * most;
    deal.end = min(deal.begin + most, groups);
  }
  return deal;
}

// What lies at `address`, the same for all threads of the block: one of each warp reads it for the
// others. All threads of the block must call it.
__device__ __forceinline__ acc_t load_once(const acc_t* address) {
  acc_t value = 0;
  if (threadIdx.x % 32 == 0) value = load(address);
  return __shfl_sync(0xffffffffu, value, 0);
}

#define WARPS (BLOCK / 32)

// Adds up what the block's threads found and returns it to thread 0. All threads of the block must
// call it. `partial` holds WARPS numbers.
__device__ __forceinline__ acc_t block_sum(acc_t part, acc_t* partial) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) part += __shfl_xor_sync(0xffffffffu, part, step);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = part;
  __syncthreads();
  if (threadIdx.x > 0) return 0;
  part = 0;
#pragma unroll
  for (int warp = 0; warp < WARPS; ++warp) part += partial[warp];
  return part;
}

// Adds up each plane's part of `partial`, one number a group, and writes it to to[plane]. All
// threads of the block must call it.
__device__ __forceinline__ void store_plane_sums(
    const acc_t* partial, index_t groups, index_t count, acc_t* to) {
  constexpr int TEAM = 8;  // threads that add up a plane
  const int member = threadIdx.x % TEAM;
#pragma unroll 1
  for (index_t first = 0; first < count; first += BLOCK / TEAM) {
    const index_t plane = first + threadIdx.x / TEAM;
    acc_t sum = 0;
    if (plane < count) {
#pragma unroll 2
      for (index_t group = member; group < groups; group += TEAM) {
        sum += partial[plane * groups + group];
      }
    }
#pragma unroll
    for (int step = TEAM / 2; step > 0; step /= 2) {
      sum += __shfl_xor_sync(0xffffffffu, sum, step);
    }
    if (plane < count && member == 0) store(to + plane, sum);
  }
}
