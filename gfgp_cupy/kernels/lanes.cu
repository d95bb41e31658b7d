// How threads share out channels_last planes, and how they add up what each found of one.
//
// Macros: VECTOR, elements a thread takes at once of output-sized tensors; LANES, neighbouring
//         threads that stand side by side along the channels.
//
// A thread owns VECTOR channels of some of a sample's windows; blocks, each of at most `most`
// windows, are numbered by sample, channels, then windows.

#define BLOCK 256
#define ROWS_OF_LANES (BLOCK / LANES)

struct Share {
  index_t n, channel;           // sample, first channel
  index_t begin, end;           // the block's windows; each row of lanes takes the next one
  index_t block_channel;        // the first channel of the block's first thread
  index_t chunk, chunks;        // which of the plane's chunks of windows this is, of how many
  bool active;
};

// What the host tells of the deal; lanes.py says of each number what it is.
#define DEAL                                                                                      \
  long long most, long long chunks, long long by_chunks, long long channel_blocks,                \
      long long by_channel_blocks

__device__ __forceinline__ Share block_share(index_t channels, index_t windows, DEAL) {
  Share share;
  const index_t block = blockIdx.x, vectors = channels / VECTOR;
  const index_t column = divide(block, chunks, by_chunks);
  share.chunks = chunks;
  share.chunk = block - column * share.chunks;
  share.n = divide(column, channel_blocks, by_channel_blocks);
  const index_t channel_block = column - share.n * (index_t)channel_blocks;
  const index_t vector = channel_block * LANES + threadIdx.x % LANES;
  share.active = vector < vectors;
  share.channel = vector * VECTOR;
  share.block_channel = share.channel - threadIdx.x % LANES * VECTOR;
  share.begin = share.chunk * (index_t)most;
  share.end = min(share.begin + (index_t)most, windows);
  return share;
}

// Channels of a block.
#define COLUMNS (LANES * VECTOR)

// Adds up `part` over the block's windows and writes it to to[n, chunk, channel]. All threads of
// the block must call it. `partial`, in shared memory, holds COLUMNS numbers a warp.
__device__ __forceinline__ void store_sum(
    acc_t (&part)[VECTOR], const Share& share, index_t channels, acc_t* partial, acc_t* to) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) {
#pragma unroll
    for (int step = LANES; step < 32; step *= 2) {
      part[v] += __shfl_xor_sync(0xffffffffu, part[v], step);
    }
    if (lane < LANES) partial[warp * COLUMNS + lane * VECTOR + v] = part[v];
  }
  __syncthreads();
#pragma unroll 1
  for (int column = threadIdx.x; column < COLUMNS; column += BLOCK) {
    acc_t sum = 0;
#pragma unroll
    for (int warp = 0; warp < BLOCK / 32; ++warp) sum += partial[warp * COLUMNS + column];
    const index_t channel = share.block_channel + column;
    if (channel < channels) {
      store(to + (share.n * share.chunks + share.chunk) * channels + channel, sum);
    }
  }
}
