// The gradient of a lam that is constant over planes, from what the forward pass saved:
// the sum over a plane's windows of grad_output times variance = spread * spread.
//
// Threads share out planes as lanes.cu tells. Reads 2 O; writes one acc_t a plane (contiguous:
// grad_lam[n, c]) or a chunk of a plane (channels_last: grad_lam[n, chunk, c]).

#if CHANNELS_LAST

extern "C" __global__ void BOUNDS(BLOCK) max_ent_pool2d_lam_gradient(
    const scalar_t* __restrict__ grad_output, const scalar_t* __restrict__ spread,
    acc_t* __restrict__ grad_lam, long long channels_, long long windows_, DEAL) {
  const index_t channels = channels_, windows = windows_;
  const Share share = block_share(
      channels, windows, most, chunks, by_chunks, channel_blocks, by_channel_blocks);
  acc_t part[VECTOR];
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) part[v] = 0;
  if (share.active) {
    for (index_t window = share.begin + threadIdx.x / LANES; window < share.end;
         window += ROWS_OF_LANES) {
      const index_t at = (share.n * windows + window) * channels + share.channel;
      const Pack<VECTOR> grads = load_pack<VECTOR>(grad_output + at);
      const Pack<VECTOR> spreads = load_pack<VECTOR>(spread + at);
#pragma unroll
      for (int v = 0; v < VECTOR; ++v) {
        const acc_t deviation = unpack_spread(spreads.element[v]);
        part[v] += widen(grads.element[v]) * deviation * deviation;
      }
    }
  }
  extern __shared__ __align__(16) unsigned char smem[];
  store_sum(part, share, channels, reinterpret_cast<acc_t*>(smem), grad_lam);
}

#else

extern "C" __global__ void BOUNDS(BLOCK) max_ent_pool2d_lam_gradient(
    const scalar_t* __restrict__ grad_output, const scalar_t* __restrict__ spread,
    acc_t* __restrict__ grad_lam, long long planes, long long windows_) {
  const index_t plane = own_plane(), windows = windows_;
  acc_t part = 0;
  if (plane < planes) {
    for (index_t window = threadIdx.x % LANES * VECTOR; window < windows;
         window += LANES * VECTOR) {
      const Pack<VECTOR> grads = load_pack<VECTOR>(grad_output + plane * windows + window);
      const Pack<VECTOR> spreads = load_pack<VECTOR>(spread + plane * windows + window);
#pragma unroll
      for (int v = 0; v < VECTOR; ++v) {
        const acc_t deviation = unpack_spread(spreads.element[v]);
        part += widen(grads.element[v]) * deviation * deviation;
      }
    }
  }
  store_sum(part, plane, planes, grad_lam);
}

#endif
