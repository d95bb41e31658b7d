// How threads share out planes, and how they add up what each found of a plane.
//
// Macros: CHANNELS_LAST; VECTOR, elements a thread takes at once of output-sized tensors;
//         LANES, neighbouring threads that share a plane (contiguous) or stand side by side along
//         the channels (channels_last); channels_last: WINDOWS_PER_THREAD.
//
// Contiguous: LANES threads own one plane. Channels_last: one thread owns VECTOR channels of
// WINDOWS_PER_THREAD windows of one sample; blocks are numbered by sample, channels, then windows.

#define BLOCK 256
#define ROWS_OF_LANES (BLOCK / LANES)

#if CHANNELS_LAST

#define WINDOWS_PER_BLOCK (ROWS_OF_LANES * WINDOWS_PER_THREAD)

struct Share {
  index_t n, channel;           // sample, first channel
  index_t begin, end;           // windows, ROWS_OF_LANES apart
  index_t chunk, chunks;        // which of the plane's chunks of windows this is, of how many
  bool active;
};

__device__ __forceinline__ Share block_share(index_t channels, index_t windows) {
  Share share;
  share.chunks = (windows + WINDOWS_PER_BLOCK - 1) / WINDOWS_PER_BLOCK;
  const index_t vectors = channels / VECTOR;
  const index_t channel_blocks = (vectors + LANES - 1) / LANES;
  const index_t block = blockIdx.x;
  share.chunk = block % share.chunks;
  share.n = block / share.chunks / channel_blocks;
  const index_t vector = block / share.chunks % channel_blocks * LANES + threadIdx.x % LANES;
  share.active = vector < vectors;
  share.channel = vector * VECTOR;
  share.begin = share.chunk * WINDOWS_PER_BLOCK + threadIdx.x / LANES;
  share.end = min((share.chunk + 1) * WINDOWS_PER_BLOCK, windows);
  return share;
}

// Adds up `part` over the block's windows and writes it to to[n, chunk, channel]. All threads of
// the block must call it. Shared memory: BLOCK * VECTOR acc_t.
__device__ __forceinline__ void store_sum(
    const acc_t (&part)[VECTOR], const Share& share, index_t channels, acc_t* to) {
  extern __shared__ __align__(16) unsigned char smem[];
  acc_t* partial = reinterpret_cast<acc_t*>(smem);
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) partial[threadIdx.x * VECTOR + v] = part[v];
  __syncthreads();
  if (threadIdx.x >= LANES || !share.active) return;
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) {
    acc_t sum = 0;
    // Unrolled as a whole, all rows would be read before the first is added.
#pragma unroll 4
    for (int row = 0; row < ROWS_OF_LANES; ++row) {
      sum += partial[(row * LANES + threadIdx.x) * VECTOR + v];
    }
    store(to + (share.n * share.chunks + share.chunk) * channels + share.channel + v, sum);
  }
}

#else

__device__ __forceinline__ index_t own_plane() {
  return (index_t)blockIdx.x * ROWS_OF_LANES + threadIdx.x / LANES;
}

// Adds up `part` over the LANES threads of a plane and writes it to to[plane]. All threads of the
// block must call it. Shared memory: one acc_t a warp.
__device__ __forceinline__ void store_sum(acc_t part, index_t plane, index_t planes, acc_t* to) {
#pragma unroll
  for (int step = min(LANES, 32) / 2; step > 0; step /= 2) {
    part += __shfl_xor_sync(0xffffffffu, part, step);
  }
  if (LANES > 32) {
    extern __shared__ __align__(16) unsigned char smem[];
    acc_t* partial = reinterpret_cast<acc_t*>(smem);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = part;
    __syncthreads();
    part = 0;
#pragma unroll
    for (int warp = 0; warp < LANES / 32; ++warp) {
      part += partial[threadIdx.x / LANES * (LANES / 32) + warp];
    }
  }
  if (plane < planes && threadIdx.x % LANES == 0) store(to + plane, part);
}

#endif
