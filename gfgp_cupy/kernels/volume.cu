// Pooling of volumes by any kernel, stride and padding, in both memory formats. One program for all
// windows: its macros are those of volume_window.cu.

// Left alone, the compiler spills a few registers of some functions.
#undef BOUNDS
#define BOUNDS(threads) __launch_bounds__(threads, 1)

#define THREE(name) long long name##_d, long long name##_h, long long name##_w
#define PARAMETERS                                                                                \
  long long outputs, long long channels, THREE(size), THREE(out), long long lam_n,                \
      long long lam_c, THREE(lam), THREE(kernel), THREE(stride), THREE(padding), long long taps
#define SIZES_OF(name) {{(index_t)name##_d, (index_t)name##_h, (index_t)name##_w}}
#define PLANES                                                                                    \
  {                                                                                               \
    (index_t)channels, SIZES_OF(size), SIZES_OF(out), SIZES_OF(kernel), SIZES_OF(stride),         \
        SIZES_OF(padding), (acc_t)taps, reciprocal((acc_t)taps)                                   \
  }
#define LAM_OFFSET(position)                                                                      \
  ((position).n * lam_n + (position).c * lam_c + (position).at.of[0] * lam_d +                    \
   (position).at.of[1] * lam_h + (position).at.of[2] * lam_w)

// The place in memory order of the element that this thread owns.
__device__ __forceinline__ index_t own_index() {
  return (index_t)blockIdx.x * blockDim.x + threadIdx.x;
}

// One thread owns one window: it reads the window's elements, several times, but for the first from
// cache, and its lam, and writes one output element, and where `spread` is given the window's
// spread. Threads are numbered in the output's memory order.
// Least global traffic: the input once, the output once.
extern "C" __global__ void BOUNDS(256) KERNEL(volume_forward)(
    const scalar_t* __restrict__ input, const acc_t* __restrict__ lam,
    scalar_t* __restrict__ output, scalar_t* __restrict__ spread, PARAMETERS) {
  const index_t index = own_index();
  if (index >= outputs) return;
  const Planes planes = PLANES;
  const Window window = window_at(input, planes, index);
  const State of = state_of(window, planes, load(lam + LAM_OFFSET(window.at)));
  store(output + index, narrow(output_of(window, planes, of)));
  if (spread) store(spread + index, spread_of(sensitivity_of(window, planes, of)));
}

// One thread owns one window: it reads the window's elements, its lam and grad_output. Where
// `statistics` is given, it writes the NUMBERS that the gather needs to know of the window, each
// `outputs` elements after the one before. Where `grad_lam` is given, it writes grad_output times
// the window's sensitivity, the window's part of lam's gradient.
// Traffic: reads X + O, writes NUMBERS O and 1 O in acc_t.
extern "C" __global__ void BOUNDS(256) KERNEL(volume_statistics)(
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
extern "C" __global__ void BOUNDS(256) KERNEL(volume_gather)(
    const scalar_t* __restrict__ input, const acc_t* __restrict__ lam,
    const acc_t* __restrict__ statistics, const acc_t* __restrict__ mean_grad,
    scalar_t* __restrict__ grad_input, long long inputs, PARAMETERS) {
  const index_t index = own_index();
  if (index >= inputs) return;
  const Planes planes = PLANES;
  Position at = position_at(planes, index, planes.size);
  const index_t first = volume_offset(planes, at, planes.out), step = column_step(planes);
  const acc_t x = widen(load(input + index));
  acc_t gradient = mean_grad ? load(mean_grad + at.n * planes.channels + at.c) : 0;
  Sizes begin, end;  // of the windows that cover it
#pragma unroll
  for (int axis = 0; axis < AXES; ++axis) {
    const index_t last = at.at.of[axis] + planes.padding.of[axis];
    const index_t kernel = planes.kernel.of[axis], stride = planes.stride.of[axis];
    begin.of[axis] = last < kernel ? 0 : (last - kernel) / stride + 1;
    end.of[axis] = min(last / stride + 1, planes.out.of[axis]);
  }
  for (index_t d = begin.of[0]; d < end.of[0]; ++d) {
    for (index_t h = begin.of[1]; h < end.of[1]; ++h) {
      for (index_t w = begin.of[2]; w < end.of[2]; ++w) {
        at.at = {{d, h, w}};
        const index_t window =
            first + ((d * planes.out.of[1] + h) * planes.out.of[2] + w) * step;
        Message message;
#pragma unroll
        for (int k = 0; k < NUMBERS; ++k) {
          message.number[k] = load(statistics + k * outputs + window);
        }
        gradient += received(x, load(lam + LAM_OFFSET(at)), message);
      }
    }
  }
  store(grad_input + index, narrow(gradient));
}
