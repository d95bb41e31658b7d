// Max-Ent pooling, forward: any kernel, stride and padding, both memory formats.
//
// One thread owns one window: it reads the window's elements (twice, the second time from cache)
// and its lam, and writes one output element. Threads are numbered in the output's memory order.
// Least global traffic: the input once, the output once.

extern "C" __global__ void __launch_bounds__(256) max_ent_pool2d_forward(
    const scalar_t* __restrict__ input, const acc_t* __restrict__ lam,
    scalar_t* __restrict__ output, long long outputs, long long channels, long long height,
    long long width, long long out_h, long long out_w, long long lam_n, long long lam_c,
    long long lam_h, long long lam_w) {
  const index_t index = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= outputs) return;
  const Planes planes = {(index_t)channels, (index_t)height, (index_t)width, (index_t)out_h,
                         (index_t)out_w};
  const Position at = position_at(planes, index, planes.out_h, planes.out_w);
  const acc_t scale =
      LOG2_E * load(lam + at.n * lam_n + at.c * lam_c + at.h * lam_h + at.w * lam_w);
  const scalar_t* plane =
      input + plane_offset(planes, at.n, at.c, planes.height, planes.width);
  const Sums sums = window_sums(plane, planes, window_bounds(planes, at.h, at.w), scale);
  store(output + index, narrow(sums.mean));
}
