// Max-Ent pooling of any kernel, stride and padding, in both memory formats: what disjoint.cu and
// overlapping.cu cannot serve.
//
// Macros: those of window.cu; WRITE_SPREAD, WRITE_STATISTICS, WRITE_GRAD_LAM, ADD_MEAN_GRAD.

// One thread owns one window: it reads the window's elements (twice, the second time from cache)
// and its lam, and writes one output element, and with WRITE_SPREAD the window's standard
// deviation. Threads are numbered in the output's memory order.
// Least global traffic: the input once, the output once.

extern "C" __global__ void BOUNDS(256) max_ent_pool2d_general_forward(
    const scalar_t* __restrict__ input, const acc_t* __restrict__ lam,
    scalar_t* __restrict__ output, scalar_t* __restrict__ spread, long long outputs, long long channels, long long height,
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
  const Bounds bounds = window_bounds(planes, at.h, at.w);
  const Sums sums = window_sums(plane, planes, bounds, scale);
  store(output + index, narrow(sums.mean));
  if (WRITE_SPREAD) {
    store(spread + index, narrow(sqrt(window_variance(plane, planes, bounds, scale, sums))));
  }
}

// One thread owns one window: it reads the window's elements, its lam and grad_output, and writes
// what the gather needs to know of the window, its mean y and log2 of the total weight relative
// to y; and grad_output times the variance of the window, the window's part of lam's gradient.
// Traffic: reads X + O, writes 3 O in acc_t (WRITE_STATISTICS, WRITE_GRAD_LAM: 2 and 1 of them).
extern "C" __global__ void BOUNDS(256) max_ent_pool2d_window_statistics(
    const scalar_t* __restrict__ grad_output, const scalar_t* __restrict__ input,
    const acc_t* __restrict__ lam, acc_t* __restrict__ mean, acc_t* __restrict__ log_total,
    acc_t* __restrict__ grad_lam, long long outputs, long long channels, long long height,
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
  const Bounds bounds = window_bounds(planes, at.h, at.w);
  const Sums sums = window_sums(plane, planes, bounds, scale);
  if (WRITE_STATISTICS) {
    store(mean + index, sums.mean);
    store(log_total + index, log2(sums.total) + scale * (sums.reference - sums.mean));
  }
  if (WRITE_GRAD_LAM) {
    const acc_t variance = window_variance(plane, planes, bounds, scale, sums);
    store(grad_lam + index, widen(load(grad_output + index)) * variance);
  }
}

// One thread owns one input element: it adds up, in a fixed order, what each window that covers
// it sends back, g p (1 + lam (x - y)), and writes one gradient; zero where no window reaches.
// ADD_MEAN_GRAD: adds mean_grad[n, c] to each.
// Traffic: reads X + O and the statistics 2 O in acc_t, writes X.
extern "C" __global__ void BOUNDS(256) max_ent_pool2d_gather(
    const scalar_t* __restrict__ grad_output, const scalar_t* __restrict__ input,
    const acc_t* __restrict__ lam, const acc_t* __restrict__ mean,
    const acc_t* __restrict__ log_total, const acc_t* __restrict__ mean_grad,
    scalar_t* __restrict__ grad_input, long long inputs, long long channels, long long height, long long width, long long out_h, long long out_w,
    long long lam_n, long long lam_c, long long lam_h, long long lam_w) {
  const index_t index = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= inputs) return;
  const Planes planes = {(index_t)channels, (index_t)height, (index_t)width, (index_t)out_h,
                         (index_t)out_w};
  const Position at = position_at(planes, index, planes.height, planes.width);
  const index_t bottom = at.h + PADDING_H, right = at.w + PADDING_W;
  const index_t row_begin = bottom < KERNEL_H ? 0 : (bottom - KERNEL_H) / STRIDE_H + 1;
  const index_t column_begin = right < KERNEL_W ? 0 : (right - KERNEL_W) / STRIDE_W + 1;
  const index_t row_end = min(bottom / STRIDE_H + 1, planes.out_h);
  const index_t column_end = min(right / STRIDE_W + 1, planes.out_w);
  const index_t step = column_step(planes);
  const index_t first = plane_offset(planes, at.n, at.c, planes.out_h, planes.out_w);
  const acc_t x = widen(load(input + index));
  acc_t gradient = ADD_MEAN_GRAD ? load(mean_grad + at.n * planes.channels + at.c) : 0;
  for (index_t h = row_begin; h < row_end; ++h) {
    for (index_t w = column_begin; w < column_end; ++w) {
      const index_t window = first + (h * planes.out_w + w) * step;
      const acc_t lambda = load(lam + at.n * lam_n + at.c * lam_c + h * lam_h + w * lam_w);
      const acc_t deviation = x - load(mean + window);
      const acc_t weight =
          power_of_two(LOG2_E * lambda * deviation - load(log_total + window));
      gradient += widen(load(grad_output + window)) * weight * (1 + lambda * deviation);
    }
  }
  store(grad_input + index, narrow(gradient));
}
