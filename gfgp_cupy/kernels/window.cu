// One pooling window: where it lies, and its softmax sums.
//
// Macros: CHANNELS_LAST (0 or 1). Everything else is told at run time.
//
// As in softmax.cu, sums are taken relative to a reference element r, the window's maximum (its
// minimum where lam < 0), and terms that are no weights get a factor with which their sum does not
// overflow where differences do not. Sums are compensated, since windows may be of any size.

struct Planes {
  index_t channels, height, width, out_h, out_w;
  index_t kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w;
  acc_t taps, factor;  // a power of two from the window's number of elements on, and its inverse
};

// Element steps through a plane of the input.
__device__ __forceinline__ index_t column_step(const Planes& planes) {
  return CHANNELS_LAST ? planes.channels : 1;
}

__device__ __forceinline__ index_t row_step(const Planes& planes) {
  return planes.width * column_step(planes);
}

// Offset of element (n, c, 0, 0) of a tensor with planes of height x width.
__device__ __forceinline__ index_t plane_offset(
    const Planes& planes, index_t n, index_t c, index_t height, index_t width) {
  return CHANNELS_LAST ? n * height * width * planes.channels + c
                       : (n * planes.channels + c) * height * width;
}

struct Position {
  index_t n, c, h, w;
};

// The coordinates of the element at `offset` in memory, of a dense tensor with planes of
// height x width.
__device__ __forceinline__ Position position_at(
    const Planes& planes, index_t offset, index_t height, index_t width) {
  Position at;
  if (CHANNELS_LAST) {
    at.c = offset % planes.channels;
    offset /= planes.channels;
    at.w = offset % width;
    offset /= width;
    at.h = offset % height;
    at.n = offset / height;
  } else {
    at.w = offset % width;
    offset /= width;
    at.h = offset % height;
    offset /= height;
    at.c = offset % planes.channels;
    at.n = offset / planes.channels;
  }
  return at;
}

struct Window {
  Position at;                             // of its output
  const scalar_t* plane;                   // that it lies in
  index_t h_begin, h_end, w_begin, w_end;  // its elements inside the plane
};

// The window whose output lies at `offset` in memory.
__device__ __forceinline__ Window window_at(
    const scalar_t* input, const Planes& planes, index_t offset) {
  const Position at = position_at(planes, offset, planes.out_h, planes.out_w);
  const index_t top = at.h * planes.stride_h - planes.padding_h;
  const index_t left = at.w * planes.stride_w - planes.padding_w;
  Window window;
  window.at = at;
  window.plane = input + plane_offset(planes, at.n, at.c, planes.height, planes.width);
  window.h_begin = max(top, (index_t)0);
  window.w_begin = max(left, (index_t)0);
  window.h_end = min(top + planes.kernel_h, planes.height);
  window.w_end = min(left + planes.kernel_w, planes.width);
  return window;
}

// Calls visit(x) for each element of the window, row by row.
template <class Visit>
__device__ __forceinline__ void for_each_element(
    const Window& window, const Planes& planes, const Visit& visit) {
  const index_t row = row_step(planes), column = column_step(planes);
  for (index_t h = window.h_begin; h < window.h_end; ++h) {
    for (index_t w = window.w_begin; w < window.w_end; ++w) {
      visit(widen(load(window.plane + h * row + w * column)));
    }
  }
}

// A sum that keeps what rounding loses, for the next term: a window may have 50,000.
struct Sum {
  acc_t total = 0, lost = 0;
  __device__ __forceinline__ void add(acc_t term) {
    const acc_t owed = term - lost, next = total + owed;
    lost = next - next == 0 ? (next - total) - owed : 0;  // nothing is lost of an infinite sum
    total = next;
  }
};

struct Softmax {
  acc_t scale;          // lam log2(e)
  acc_t reference;      // r
  acc_t inverse_total;  // of the weights
  acc_t shift;          // the mean of x - r
};

__device__ __forceinline__ acc_t weight_of(acc_t x, const Softmax& in) {
  return power_of_two(in.scale * (x - in.reference));
}

__device__ __forceinline__ Softmax softmax(
    const Window& window, const Planes& planes, acc_t lam) {
  Softmax result;
  result.scale = LOG2_E * lam;
  acc_t reference = widen(load(window.plane + window.h_begin * row_step(planes) +
                               window.w_begin * column_step(planes)));
  for_each_element(window, planes, [&](acc_t x) {
    if (lam < 0 ? x < reference : x > reference) reference = x;
  });
  result.reference = reference;
  Sum total, weighted;
  for_each_element(window, planes, [&](acc_t x) {
    const acc_t weight = weight_of(x, result);
    total.add(weight);
    weighted.add(weight * (planes.factor * (x - reference)));
  });
  result.inverse_total = reciprocal(total.total);
  result.shift = weighted.total * result.inverse_total * planes.taps;
  return result;
}

// y, in the two parts that softmax.cu tells of.
__device__ __forceinline__ acc_t mean(
    const Window& window, const Planes& planes, const Softmax& of) {
  const acc_t first = of.reference + of.shift;
  Sum weighted;
  for_each_element(window, planes, [&](acc_t x) {
    weighted.add(weight_of(x, of) * (planes.factor * (x - first)));
  });
  return first + weighted.total * of.inverse_total * planes.taps;
}

__device__ __forceinline__ acc_t variance(
    const Window& window, const Planes& planes, const Softmax& of) {
  Sum sum;
  for_each_element(window, planes, [&](acc_t x) {
    const acc_t deviation = (x - of.reference) - of.shift;
    // In this order: a weight of 0 must not meet an infinite square.
    sum.add(weight_of(x, of) * deviation * deviation);
  });
  return sum.total * of.inverse_total;
}
