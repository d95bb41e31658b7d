// How a block adds up what its threads found of contiguous planes, always in the same order.
//
// Macros: TEAM, threads that add up one of several planes: a power of two, at most a warp.

// Adds up what the block's threads found and returns it to thread 0. All threads of the block must
// call it. `partial` holds a number for each warp.
__device__ __forceinline__ acc_t block_sum(acc_t part, int threads, acc_t* partial) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) part += __shfl_xor_sync(0xffffffffu, part, step);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = part;
  __syncthreads();
  if (threadIdx.x > 0) return 0;
  part = 0;
#pragma unroll 1
  for (int warp = 0; warp < threads / 32; ++warp) part += partial[warp];
  return part;
}

// Adds up each plane's part of `partial`, one number a group, and writes it to to[plane]. All
// threads of the block must call it.
__device__ __forceinline__ void store_plane_sums(
    const acc_t* partial, index_t groups, index_t count, int threads, acc_t* to) {
  const int member = threadIdx.x % TEAM;
#pragma unroll 1
  for (index_t first = 0; first < count; first += threads / TEAM) {
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
