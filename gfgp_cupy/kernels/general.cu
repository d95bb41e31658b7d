// Pooling of any kernel, stride and padding, in both memory formats: what the other
// families cannot serve. One program for all windows: its macros are those of window.cu.

#define PARAMETERS                                                                                \
  long long outputs, long long channels, long long height, long long width, long long out_h,      \
      long long out_w, long long lam_n, long long lam_c, long long lam_h, long long lam_w,        \
      long long kernel_h, long long kernel_w, long long stride_h, long long stride_w,             \
      long long padding_h, long long padding_w, long long taps
#define PLANES                                                                                    \
  {                                                                                               \
    (index_t)channels, (index_t)height, (index_t)width, (index_t)out_h, (index_t)out_w,           \
        (index_t)kernel_h, (index_t)kernel_w, (index_t)stride_h, (index_t)stride_w,               \
        (index_t)padding_h, (index_t)padding_w, (acc_t)taps, reciprocal((acc_t)taps)              \
  }
#define LAM_OFFSET(at) ((at).n * lam_n + (at).c * lam_c + (at).h * lam_h + (at).w * lam_w)

// The place in memory order of the element that this thread owns.
__device__ __forceinline__ index_t own_index() {
  return (index_t)blockIdx.x * blockDim.x + threadIdx.x;
}

// One thread owns one window: it reads the window's elements (three times, but for the first from
// cache; a fourth time for `spread`) and its lam, and writes one output element, and where `spread`
// is given the window's spread. Threads are numbered in the output's memory order.
// Least global traffic: the input once, the output once.
extern "C" __global__ void BOUNDS(256) KERNEL(general_forward)(
    const scalar_t* __restrict__ input, const acc_t* __restrict__ lam,
    scalar_t* __restrict__ output, scalar_t* __restrict__ spread, PARAMETERS) {
  const index_t index = own_index();
  if (index >= outputs) return;
  const Planes planes = PLANES;
  const Window window = window_at(input, planes, index);
  const State of = state_of(window, planes, load(lam + LAM_OFFSET(window.at)));
  store(output + index, narrow(output_of(window, planes, of)));
  if (spread) {
    store(spread + index, spread_of(sensitivity_of(window, planes, of)));
  }
}

// One thread owns one window: it reads the window's elements, its lam and grad_output. Where
// `statistics` is given, it writes the NUMBERS that the gather needs to know of the window, each
// `outputs` elements after the one before. Where `grad_lam` is given, it writes grad_output times
// the window's sensitivity, the window's part of lam's gradient.
// Traffic: reads X + O, writes NUMBERS O and 1 O in acc_t.
extern "C" __global__ void BOUNDS(256) KERNEL(window_statistics)(
    const scalar_t* __restrict__ grad_output, const scalar_t* __restrict__ input,
    const acc_t* __restrict__ lam, acc_t* __restrict__ statistics, acc_t* __restrict__ grad_lam,
    PARAMETERS) {
  const index_t index = own_index();
  if (index >= outputs) return;
  const Planes planes = PLANES;
  const Window window = window_at(input, planes, index);
  const State of = state_of(window, planes, load(lam + LAM_OFFSET(window.at)));
  const acc_t grad = widen(load(grad_output + index));
  if (statistics) {
    const Message message = message_of(window, planes, of, grad);
#pragma unroll
    for (int k = 0; k < NUMBERS; ++k) store(statistics + k * outputs + index, message.number[k]);
  }
  if (grad_lam) store(grad_lam + index, grad * sensitivity_of(window, planes, of));
}

// One thread owns one input element: it adds up, in a fixed order, what each window that covers
// it sends back, and writes one gradient; zero where no window reaches.
// Where `mean_grad` is given, it adds mean_grad[n, c] to each.
// Traffic: reads X and the statistics, NUMBERS O in acc_t, writes X.
extern "C" __global__ void BOUNDS(256) KERNEL(gather)(
    const scalar_t* __restrict__ input, const acc_t* __restrict__ lam,
    const acc_t* __restrict__ statistics, const acc_t* __restrict__ mean_grad,
    scalar_t* __restrict__ grad_input, long long inputs, PARAMETERS) {
  const index_t index = own_index();
  if (index >= inputs) return;
  const Planes planes = PLANES;
  const Position at = position_at(planes, index, planes.height, planes.width);
  const index_t bottom = at.h + planes.padding_h, right = at.w + planes.padding_w;
  const index_t row_begin =
      bottom < planes.kernel_h ? 0 : ratio(bottom - planes.kernel_h, planes.stride_h) + 1;
  const index_t column_begin =
      right < planes.kernel_w ? 0 : ratio(right - planes.kernel_w, planes.stride_w) + 1;
  const index_t row_end = min(ratio(bottom, planes.stride_h) + 1, planes.out_h);
  const index_t column_end = min(ratio(right, planes.stride_w) + 1, planes.out_w);
  const index_t step = column_step(planes);
  const index_t first = plane_offset(planes, at.n, at.c, planes.out_h, planes.out_w);
  const acc_t x = widen(load(input + index));
  acc_t gradient = mean_grad ? load(mean_grad + at.n * planes.channels + at.c) : 0;
  for (index_t h = row_begin; h < row_end; ++h) {
    const acc_t* window = statistics + (first + (h * planes.out_w + column_begin) * step);
    const acc_t* lam_of_window = lam + LAM_OFFSET((Position{at.n, at.c, h, column_begin}));
    for (index_t w = column_begin; w < column_end; ++w) {
      Message message;
#pragma unroll
      for (int k = 0; k < NUMBERS; ++k) message.number[k] = load(window + k * outputs);
      gradient += received(x, load(lam_of_window), message);
      window += step;
      lam_of_window += lam_w;
    }
  }
  store(grad_input + index, narrow(gradient));
}
